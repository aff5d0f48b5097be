"""What the world does to a run's file: kills, full and dead disks, damage, strangers' files, forks."""

import errno
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from thalweg.core.errors import RunFileError, ThalwegWarning
from thalweg.record import Recorder, compact, compaction, liveness, logfile, open_run, open_runs, writing
from thalweg.record.frames import MARKER
from thalweg.record.sqlitefile import SQLITE_MAGIC

CHILD = """
    import sys, time
    from thalweg.record import Recorder
    recorder = Recorder(sys.argv[1])
    print("ready", flush=True)
    step = 0
    while True:
        recorder.log({"step": step % 1000, "wall": step}, step)
        recorder.log({"sometimes": 1.0}, step) if step % 7 == 0 else None
        step += 1
        time.sleep(0.001)
"""


def child(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def kill_and_look(folder, seconds):
    """Start a writer, kill it after a while, and look at its file and at a copy made just before."""
    path, copy = folder / "a.tw", folder / "copy" / "a.tw"
    copy.parent.mkdir()
    process = child(CHILD, path)
    try:
        assert process.stdout.readline().strip() == "ready"
        time.sleep(seconds)
        shutil.copyfile(path, copy)
        copied = time.time()
        process.kill()
        killed = time.time()
    finally:
        process.kill()
        process.communicate()
    for file, moment in ((path, killed), (copy, copied)):
        run = open_run(file)
        assert run.warnings == []
        part = run.segments[0]
        assert (part.reason, part.live) == ("killed", False)
        if moment - part.started < 1.5:
            continue
        steps = run["wall"]
        assert np.array_equal(steps.steps, np.arange(len(steps))), "no gap"
        assert np.array_equal(steps.values, np.arange(len(steps)))
        assert steps.times[-1] > moment - 1.5, "nothing older than 1.5 s is missing"
    before = {name: open_run(path)[name].values.tolist() for name in open_run(path).names()}
    compact(path)
    assert path.read_bytes().startswith(SQLITE_MAGIC)
    run = open_run(path)
    assert {name: run[name].values.tolist() for name in run.names()} == before
    assert run.segments[0].reason == "killed"


MOMENTS = [
    random.Random(i).uniform(0, 1.2) if i % 2 else random.Random(i).uniform(1.5, 2.4) for i in range(100)
]


@pytest.mark.parametrize("moment", MOMENTS[:6])
def test_a_kill_at_any_moment_loses_about_a_second(tmp_path, moment):
    kill_and_look(tmp_path, moment)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_a_hundred_moments(tmp_path, moment):
    kill_and_look(tmp_path, moment)


def filled(path, count=300):
    recorder = Recorder(path, flush_every=60)
    for step in range(count):
        recorder.log({"x": float(step), "y": 1.0}, step)
        if step % 10 == 9:
            recorder.flush()
    recorder.flush()
    return recorder


def left_as_log(path, count=300):
    """A log with its end, as a close leaves it that has no time to compact."""
    recorder = filled(path, count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recorder._compact = lambda deadline: None
        recorder.close()
    return recorder.path


def test_kills_during_compaction_leave_a_readable_run(tmp_path):
    path = left_as_log(tmp_path / "a.tw", 2000)
    code = """
        import os, signal, sys, threading, time
        from pathlib import Path
        from thalweg.record import compact, compaction, sqlitefile
        chunk = sqlitefile.SqliteWriter.raw_chunk
        left = int(sys.argv[2])
        def counted(*arguments):
            global left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return chunk(*arguments)
        sqlitefile.SqliteWriter.raw_chunk = counted
        if sys.argv[3] == "rename":
            Path.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
        compact(sys.argv[1])
    """
    for left, where in ((0, "chunk"), (2, "chunk"), (99, "rename")):
        process = child(code, path, left, where)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        run = open_run(path)
        assert np.array_equal(run["x"].values, np.arange(2000))
    assert len(open_runs(tmp_path)) == 1
    stale = [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]
    assert len(stale) == 3
    for old in stale:
        os.utime(old, (1, 1))
    compact(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tw"], "what the kills left is cleared away"
    assert np.array_equal(open_run(path)["x"].values, np.arange(2000))


def test_a_compaction_that_takes_too_long_or_is_refused_leaves_the_log(tmp_path, monkeypatch):
    path = left_as_log(tmp_path / "a.tw")
    with pytest.raises(RunFileError, match="too long"):
        compaction.compact_log(path, deadline=time.monotonic() - 1)
    recorder = filled(tmp_path / "b.tw")
    monkeypatch.setattr(type(path), "replace", lambda *a: (_ for _ in ()).throw(PermissionError("no")))
    with pytest.warns(ThalwegWarning, match="stays a log"):
        recorder.close()
    monkeypatch.undo()
    for name in ("a.tw", "b.tw"):
        run = open_run(tmp_path / name)
        assert np.array_equal(run["x"].values, np.arange(300)) and run.segments[0].reason == "closed"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tw", "b.tw"]


def test_a_torn_stretch_in_the_middle_costs_only_itself(tmp_path):
    path = left_as_log(tmp_path / "a.tw")
    data = bytearray(path.read_bytes())
    marks = [i for i in range(len(data)) if data[i : i + 4] == MARKER]
    middle = marks[len(marks) // 2]
    data[middle + 20 : middle + 25] = b"\0\0\0\0\0"
    path.write_bytes(data)
    run = open_run(path)
    assert 280 <= len(run["x"]) < 300
    assert set(range(300)) - set(run["x"].steps) <= set(range(300))
    assert any("damaged" in text for text in run.warnings)
    compact(path)
    assert len(open_run(path)["x"]) == len(run["x"])


def test_a_lost_declaration_is_found_again_later(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "SUMMARY_BYTES", 3000)
    monkeypatch.setattr(writing, "REPEAT_BYTES", 3000)
    path = left_as_log(tmp_path / "a.tw", 3000)
    data = path.read_bytes()
    at = data.index(MARKER + b"D")
    path.write_bytes(data[: at + 15] + b"!" + data[at + 16 :])
    assert np.array_equal(open_run(path)["x"].values, np.arange(3000))


def test_a_lost_beginning_leaves_the_values(tmp_path):
    path = left_as_log(tmp_path / "a.tw")
    data = path.read_bytes()
    path.write_bytes(data[:30] + b"!!" + data[32:])
    run = open_run(path)
    assert np.array_equal(run["x"].values, np.arange(300))
    assert any("first record" in text for text in run.warnings)
    assert abs(run.started - time.time()) < 60
    (row,) = open_runs(tmp_path)
    assert row.points == 600
    assert np.array_equal(open_run(compact(path))["x"].values, np.arange(300))


def test_a_file_cut_anywhere_opens_or_says_why_not(tmp_path):
    log = left_as_log(tmp_path / "a.tw").read_bytes()
    closed = compact(tmp_path / "a.tw").read_bytes()
    rng = random.Random(0)
    for data in (log, closed):
        for cut in [0, 1, 15, 16, 20, *(rng.randrange(len(data)) for _ in range(25))]:
            path = tmp_path / "cut.tw"
            path.write_bytes(data[:cut])
            try:
                run = open_run(path)
            except RunFileError as error:
                assert "cut.tw" in str(error)
                continue
            if "x" in run:
                values = run["x"].values
                assert np.array_equal(values, run["x"].steps)


FOREIGN = {
    "empty": (b"", "empty"),
    "pickle": (b"\x80\x04\x95garbage", "pickle"),
    "zip": (b"PK\x03\x04" + bytes(50), "ZIP"),
    "text": (b"step,loss\n1,2\n", "begins with"),
    "json": (b'{"log_history": []}', "JSON"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_refused_in_words(tmp_path, kind):
    data, words = FOREIGN[kind]
    (tmp_path / "a.tw").write_bytes(data)
    with pytest.raises(RunFileError, match=words):
        open_run(tmp_path / "a.tw")
    with pytest.raises(RunFileError):
        compact(tmp_path / "a.tw")


def test_what_is_not_there_or_a_folder_is_said(tmp_path):
    with pytest.raises(RunFileError, match="no such file"):
        open_run(tmp_path / "none")
    with pytest.raises(RunFileError, match="folder"):
        open_run(tmp_path)
    os.mkfifo(tmp_path / "pipe.tw")
    with pytest.raises(RunFileError, match="pipe"):
        open_run(tmp_path / "pipe.tw")
    assert len(open_runs(tmp_path)) == 0


def test_strange_databases_are_refused(tmp_path):
    with Recorder(tmp_path / "good.tw") as recorder:
        recorder.log({"x": 1.0}, 0)
    tricks = {
        "other": "DROP TABLE chunks",
        "view": "DROP TABLE chunks; CREATE VIEW chunks AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) "
        "SELECT x AS signal, 0 AS segment FROM c",
        "trigger": "CREATE TRIGGER t AFTER INSERT ON meta BEGIN SELECT 1; END",
        "virtual": "CREATE VIRTUAL TABLE v USING fts5(a)",
        "computed": "DROP TABLE events; CREATE TABLE events(id, json AS (zeroblob(1000000000)))",
    }
    for name, sql in tricks.items():
        path = tmp_path / f"{name}.tw"
        shutil.copy(recorder.path, path)
        db = sqlite3.connect(path)
        db.executescript(sql)
        db.close()
        with pytest.raises(RunFileError):
            open_run(path)
    rows = open_runs(tmp_path)
    assert {row.path.name for row in rows} == {"good.tw"}


def test_impossible_sizes_in_a_database_are_left_out(tmp_path):
    with Recorder(tmp_path / "a.tw") as recorder:
        recorder.log({"x": 1.0, "y": 2.0}, 0)
    db = sqlite3.connect(recorder.path)
    one = "signal = (SELECT id FROM signals WHERE name = 'x')"
    for n in ("1 << 40", "-1", "'many'", "1000000", "NULL"):
        db.execute(f"UPDATE chunks SET n = {n} WHERE {one}")
        db.commit()
        run = open_run(recorder.path)
        assert len(run["x"]) == 0 and run["y"].values.tolist() == [2]
        assert run.warnings
    db.execute("UPDATE segments SET first_step = 'x', started = 'y', world = NULL")
    db.execute("UPDATE signals SET shape = '[1000000, 1000000]' WHERE name = 'x'")
    db.commit()
    db.close()
    assert open_run(recorder.path).names() == ["y"]


@pytest.mark.filterwarnings("ignore::thalweg.core.errors.ThalwegWarning")
def test_a_full_disk_is_one_warning_and_the_run_goes_on(tmp_path, monkeypatch):
    write, full = os.write, threading.Event()
    room = [30, 7, 90]  # what still fits: frames are torn, and must be written again from their beginning

    def refusing(fd, data):
        if not full.is_set():
            return write(fd, data)
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[: room.pop()])

    recorder = Recorder(tmp_path / "a.tw", flush_every=60, queue_bytes=1 << 16)
    monkeypatch.setattr(logfile.os, "write", refusing)
    recorder.log({"x": -1.0}, 0)
    assert recorder.flush()
    full.set()
    with pytest.warns(ThalwegWarning, match="disk is full") as seen:
        for step in range(1, 20_000):
            recorder.log({"x": float(step)}, step)
            if step % 500 == 0:
                assert not recorder.flush()
    assert len([w for w in seen if "disk" in str(w.message)]) == 1
    full.clear()
    assert recorder.flush()
    recorder.log({"x": 9.0}, 20_000)
    recorder.close()
    run = open_run(recorder.path)
    kept = run["x"]
    assert kept.steps[0] == 0 and kept.steps[-1] == 20_000
    assert recorder.dropped > 0
    assert len(kept) + recorder.dropped == 20_001
    assert np.array_equal(kept.values[1:-1], kept.steps[1:-1])


def test_a_disk_that_stays_full_does_not_stop_the_end(tmp_path):
    code = """
        import resource, sys, warnings
        from thalweg.record import Recorder
        recorder = Recorder(sys.argv[1], flush_every=0.05)
        recorder.log({"x": 1.0}, 0)
        recorder.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        for step in range(1, 50_000):
            recorder.log({"x": float(step)}, step)
        print(recorder.flush(), len(recorder.run_id))
        sys.exit(7)
    """
    process = child(code, tmp_path / "a.tw")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 7, err
    assert out.split() == ["False", "32"]
    assert "disk is full" in err and "Traceback" not in err
    run = open_run(tmp_path / "a.tw")
    assert run["x"].steps[0] == 0


def test_a_folder_that_can_not_be_written(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(logfile.os, "open", refuse)
    with pytest.raises(RunFileError, match=r"can't be created.*Permission denied"):
        Recorder(tmp_path / "a.tw")


def test_a_disk_full_from_the_beginning_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(logfile.os, "write", refuse)
    with pytest.raises(RunFileError, match="No space"):
        Recorder(tmp_path / "a.tw")
    assert list(tmp_path.iterdir()) == []


def test_a_file_deleted_while_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(logfile, "_LOOK_EVERY", 0.0)
    recorder = filled(tmp_path / "a.tw")
    run = open_run(recorder.path)
    recorder.path.unlink()
    with pytest.warns(ThalwegWarning, match="was removed") as seen:
        for step in range(5):
            recorder.log({"x": 1.0}, 1000 + step)
            recorder.flush()
        recorder.close()
    assert len(seen) == 1
    assert recorder.dropped == 5
    assert list(tmp_path.iterdir()) == [], "what was removed on purpose does not come back"
    assert len(run.refresh()["x"]) == 300
    assert any("removed" in text for text in run.warnings)


def test_a_file_whose_place_was_taken_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(logfile, "_LOOK_EVERY", 0.0)
    recorder = filled(tmp_path / "a.tw")
    recorder.path.unlink()
    recorder.path.write_bytes(b"somebody else's")
    with pytest.warns(ThalwegWarning, match="was removed"):
        recorder.close()
    assert (tmp_path / "a.tw").read_bytes() == b"somebody else's"


def test_locks_are_never_asked_for(tmp_path):
    """Another process holds every lock there is on the closed file: it is read and merged all the same."""
    with Recorder(tmp_path / "a.tw") as recorder:
        recorder.log({"x": 1.0}, 0)
    holder = sqlite3.connect(recorder.path, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    assert open_run(recorder.path)["x"].last == 1.0
    assert len(open_runs(tmp_path)) == 1
    second = Recorder(tmp_path / "a~2.tw", run_id=recorder.run_id, segment=1, first_step=1)
    second.log({"x": 2.0}, 1)
    second.close()
    assert open_run(compact(recorder.path))["x"].values.tolist() == [1, 2]
    holder.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_records_nothing_and_breaks_nothing(tmp_path):
    recorder = Recorder(tmp_path / "a.tw", flush_every=60)
    recorder.log({"x": 0.0}, 0)
    pid = os.fork()
    if pid == 0:
        try:
            recorder.log({"x": 5.0}, 1)
            recorder.log({"y": 5.0}, 1)
            recorder.extend(["x"], [2], [1.0])
            recorder.event("child")
            recorder.set_meta("child", 1)
            fine = not recorder.flush() and recorder.closed
            recorder.close()
            os._exit(0 if fine else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    recorder.log({"x": 1.0}, 1)
    recorder.close()
    run = open_run(recorder.path)
    assert run["x"].values.tolist() == [0, 1]
    assert run.names() == ["x"] and run.events() == []


ENDINGS = {
    "pass": "exit",
    "1 / 0": "ZeroDivisionError",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "sys.exit(3)": "exit",
    "recorder.close()": "closed",
    "recorder.close('done')": "done",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_script_that_ends_leaves_a_closed_run(tmp_path, ending):
    code = f"import sys\nfrom thalweg.record import Recorder\nrecorder = Recorder(sys.argv[1])\nrecorder.log({{'x': 1.0}}, 0)\n{ending}"
    child(code, tmp_path / "a.tw").communicate(timeout=30)
    assert (tmp_path / "a.tw").read_bytes().startswith(SQLITE_MAGIC)
    assert open_run(tmp_path / "a.tw").segments[0].reason == ENDINGS[ending]


def test_a_dead_writers_process_id_given_to_another_is_told(tmp_path, monkeypatch):
    recorder = filled(tmp_path / "a.tw", 10)
    assert open_run(recorder.path).live
    monkeypatch.setattr(liveness, "process_birth", lambda pid: "another time")
    assert not open_run(recorder.path).live
    monkeypatch.undo()
    monkeypatch.setattr(liveness.platform, "node", lambda: "elsewhere" + socket.gethostname())
    assert open_run(recorder.path).live, "on another machine the age of the file tells"
    os.utime(recorder.path, (time.time() - 60,) * 2)
    assert not open_run(recorder.path).live
    monkeypatch.undo()
    recorder.close()


def test_an_idle_writer_shows_that_it_is_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "TOUCH_SECONDS", 0.0)
    recorder = Recorder(tmp_path / "a.tw", flush_every=0.02)
    os.utime(recorder.path, (1, 1))
    size = recorder.path.stat().st_size
    for _ in range(100):
        time.sleep(0.02)
        if recorder.path.stat().st_mtime > 1:
            break
    assert recorder.path.stat().st_mtime > time.time() - 10
    assert recorder.path.stat().st_size == size
    recorder.close()


def test_nothing_that_goes_wrong_ends_the_writer(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "a.tw", flush_every=60)
    put_block = writing.put_block
    monkeypatch.setattr(writing, "put_block", lambda *arguments: 1 / 0)
    recorder.log({"x": 1.0}, 0)
    recorder.set_meta("a", 1)
    with pytest.warns(ThalwegWarning, match="part of the record was lost"):
        recorder.flush()
    monkeypatch.setattr(writing, "put_block", put_block)
    recorder.log({"x": 2.0}, 1)
    recorder.close()
    run = open_run(recorder.path)
    assert run["x"].steps.tolist() == [1] and run.meta["a"] == 1


def test_warnings_as_errors_do_not_reach_the_loop(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Recorder(tmp_path / "a.tw") as recorder:
            recorder.log({"x": "text", "y": 1.0}, 0)
        recorder.log({"y": 1.0}, 1)
    assert open_run(recorder.path)["y"].steps.tolist() == [0]


def test_neither_files_nor_threads_are_left_open(tmp_path):
    def open_files():
        links = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
        return sum(link.startswith(str(tmp_path)) for link in links)

    def recorders():
        return sum(thread.name == "thalweg-recorder" for thread in threading.enumerate())

    threads = recorders()
    for index in range(20):
        with Recorder(tmp_path / f"{index}.tw") as recorder:
            recorder.log({"x": 1.0}, 0)
        open_run(recorder.path)["x"]
    open_runs(tmp_path)
    assert open_files() <= 3
    assert recorders() <= threads
