# The ledger through Perl's DBI and DBD::SQLite, which has a SQLite of its own.
use strict; use warnings; use DBI; use Digest::SHA "sha256_hex"; use Time::HiRes "time"; use IO::Select;
my ($path, $log, $pause) = ($ARGV[1], $ARGV[3], $ARGV[7]);
$pause =~ s/ms$//;
open(my $out, ">>", $log) or die $!;
sub say_ { syswrite($out, join(" ", @_) . "\n") }
sub now { sprintf("%d", time() * 1e9) }
say_();
eval {
    my $db = DBI->connect("dbi:SQLite:dbname=$path", "", "", {RaiseError => 1, PrintError => 0, AutoCommit => 1,
        sqlite_use_immediate_transaction => 1});
    $db->sqlite_busy_timeout(5000);
    $db->do("PRAGMA journal_mode=WAL");
    my ($id, $prev) = $db->selectrow_array("SELECT id, hash FROM state");
    say_("R", $id, $prev, now());
    my $in = IO::Select->new(\*STDIN);
    until ($in->can_read($pause / 1000)) {
        $db->begin_work;
        ($id, $prev) = $db->selectrow_array("SELECT id, hash FROM state");
        $id++;
        my $body = join "", map { chr(int(rand(256))) } 1 .. 60;
        my $hash = sha256_hex("$prev|$id|" . $body);
        my $add = $db->prepare("INSERT INTO ledger VALUES(?, ?, ?, ?)");
        $add->bind_param(3, $body, DBI::SQL_BLOB);
        $add->bind_param(1, $id); $add->bind_param(2, $prev); $add->bind_param(4, $hash);
        $add->execute;
        $db->do("UPDATE state SET id = ?, hash = ?", undef, $id, $hash);
        say_("B", $id, $hash, now());
        $db->commit;
        say_("C", $id, $hash, now(), 0);
    }
    $db->disconnect;
};
if ($@) { my $e = $@; $e =~ s/\n/ /g; say_("E perl:", $e) }
