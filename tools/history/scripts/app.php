<?php // The ledger through PHP's SQLite3, which opens, commits and closes at each request.
[$path, $log, $pause] = [$argv[2], $argv[4], (float)$argv[8]];
$say = fn(string $line) => file_put_contents($log, $line . "\n", FILE_APPEND);
$now = fn() => (string)(int)(microtime(true) * 1e9);
$say("");
try {
    $first = true;
    do {
        $db = new SQLite3($path);
        $db->enableExceptions(true);
        $db->busyTimeout(5000);
        $db->exec("PRAGMA journal_mode=WAL");
        $db->exec("BEGIN IMMEDIATE");
        $at = $db->querySingle("SELECT id, hash FROM state", true);
        if ($first) $say("R {$at['id']} {$at['hash']} " . $now());
        $first = false;
        $id = $at["id"] + 1;
        $body = random_bytes(60);
        $hash = hash("sha256", "{$at['hash']}|$id|" . $body);
        $add = $db->prepare("INSERT INTO ledger VALUES(?, ?, ?, ?)");
        foreach ([$id, $at["hash"], $body, $hash] as $i => $v)
            $add->bindValue($i + 1, $v, [SQLITE3_INTEGER, SQLITE3_TEXT, SQLITE3_BLOB, SQLITE3_TEXT][$i]);
        $add->execute();
        $db->exec("UPDATE state SET id = $id, hash = '$hash'");
        $say("B $id $hash " . $now());
        $db->exec("COMMIT");
        $say("C $id $hash " . $now() . " 0");
        $add->close();
        $db->close();
        $r = [STDIN]; $w = $e = null;
    } while (!stream_select($r, $w, $e, 0, (int)($pause * 1000)));
} catch (Exception $e) {
    $say("E php: " . $e->getMessage());
}
