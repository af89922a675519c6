# The ledger through Ruby's sqlite3.
require "sqlite3"
require "digest"
path, log, pause = ARGV[1], ARGV[3], ARGV[7].to_f / 1000
out = File.open(log, File::WRONLY | File::APPEND | File::CREAT)
out.sync = true
say = ->(*words) { out.syswrite(words.join(" ") + "\n") }
now = -> { Process.clock_gettime(Process::CLOCK_REALTIME, :nanosecond) }
say.()
begin
  db = SQLite3::Database.new(path)
  db.busy_timeout = 5000
  db.execute("PRAGMA journal_mode=WAL")
  id, prev = db.execute("SELECT id, hash FROM state")[0]
  say.("R", id, prev, now.())
  until IO.select([STDIN], nil, nil, pause)
    db.execute("BEGIN IMMEDIATE")
    id, prev = db.execute("SELECT id, hash FROM state")[0]
    id += 1
    body = Random.bytes(60)
    hash = Digest::SHA256.hexdigest("#{prev}|#{id}|".b + body)
    db.execute("INSERT INTO ledger VALUES(?, ?, ?, ?)", [id, prev, SQLite3::Blob.new(body), hash])
    db.execute("UPDATE state SET id = ?, hash = ?", [id, hash])
    say.("B", id, hash, now.())
    db.execute("COMMIT")
    say.("C", id, hash, now.(), 0)
  end
  db.close
rescue => e
  say.("E ruby:", e.message.tr("\n", " "))
end
