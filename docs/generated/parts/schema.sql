PRAGMA user_version = 1;
CREATE TABLE meta(key TEXT PRIMARY KEY, json TEXT);
CREATE TABLE segments(id INTEGER PRIMARY KEY, rank INTEGER, world INTEGER, first_step INTEGER,
    started REAL, ended REAL, reason TEXT);
CREATE TABLE clocks(id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE signals(id INTEGER PRIMARY KEY, name TEXT, role TEXT, clock INTEGER, layer TEXT, unit TEXT, dtype TEXT,
    shape TEXT, stage TEXT, reduce TEXT, formula TEXT, "window" INTEGER, estimator TEXT, version INTEGER,
    UNIQUE(name, version, dtype, shape, reduce, formula));
CREATE TABLE chunks(signal INTEGER, segment INTEGER, seq INTEGER, first INTEGER, last INTEGER, n INTEGER, codec TEXT,
    steps BLOB, vals BLOB, PRIMARY KEY(signal, segment, seq));
CREATE TABLE events(id INTEGER PRIMARY KEY, segment INTEGER, clock INTEGER, step INTEGER, time REAL, kind TEXT,
    severity TEXT, source TEXT, json TEXT);
