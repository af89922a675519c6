//go:build linux

/* The VFS "sqlwatch": the default VFS, except that every lock on the wal-index of
** a main database file goes through Go. It exists for what no pragma tells or
** does: how long the write lock was ours, the moments within a checkpoint at which a
** replicator has to act (CheckpointHooked), which read mark is ours, and to keep new
** transactions out (Freeze). */
#define _FILE_OFFSET_BITS 64
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "shim.h"

#include "_cgo_export.h"

/* A main database file. The wrapped VFS's own file follows in memory. */
typedef struct shim_file {
  sqlite3_file base;
  sqlite3 *db;      /* the connection, once SQLite has told us */
  uintptr_t handle; /* Go's handle of the connection */
  shm_record *guard; /* of the mapped wal-index */
  const char *name;  /* of a main file; SQLite keeps it while the file is open */
  sqlite3_int64 wal; /* inodes of the side files that the connection must use, 0: any */
  sqlite3_int64 shm;
} shim_file;

static sqlite3_vfs *realVfs;
static sqlite3_vfs shimVfs;

static sqlite3_file *real(sqlite3_file *f) {
  return (sqlite3_file *)((shim_file *)f + 1);
}

/* Methods that hand the call on; once the wal-index was cut, those that would write, sync or
** map fail instead. */
static int shimRead(sqlite3_file *f, void *p, int n, sqlite3_int64 off) {
  return real(f)->pMethods->xRead(real(f), p, n, off);
}
static int cut(sqlite3_file *f) {
  return sqlwatch_guard_cut(((shim_file *)f)->guard);
}
static int shimWrite(sqlite3_file *f, const void *p, int n, sqlite3_int64 off) {
  if (cut(f)) {
    return SQLITE_IOERR_SHMMAP;
  }
  return real(f)->pMethods->xWrite(real(f), p, n, off);
}
static int shimTruncate(sqlite3_file *f, sqlite3_int64 size) {
  if (cut(f)) {
    return SQLITE_IOERR_SHMMAP;
  }
  return real(f)->pMethods->xTruncate(real(f), size);
}
static int shimSync(sqlite3_file *f, int flags) {
  if (cut(f)) {
    return SQLITE_IOERR_SHMMAP;
  }
  return real(f)->pMethods->xSync(real(f), flags);
}
static int shimFileSize(sqlite3_file *f, sqlite3_int64 *size) {
  return real(f)->pMethods->xFileSize(real(f), size);
}

/* Reports whether another file than the given inode, 0 is any, is at the path of a side file. */
static int other(const char *name, const char *suffix, sqlite3_int64 inode) {
  char path[600]; /* see maxPath */
  struct stat st;
  int n;
  if (inode == 0) {
    return 0;
  }
  n = snprintf(path, sizeof path, "%s%s", name, suffix);
  return n < 0 || (size_t)n >= sizeof path || stat(path, &st) != 0 || (sqlite3_int64)st.st_ino != inode;
}
static int strange(shim_file *s) {
  int is = other(s->name, "-wal", s->wal) || other(s->name, "-shm", s->shm);
  if (is) {
    sqlwatchStrange(s->handle);
  }
  return is;
}

/* An application whose side files were removed may close at any time, and its close must be the
** last one: what it committed would be lost otherwise. So the lock is not taken then, and is given
** up at once where they were removed just now. */
static int shimLock(sqlite3_file *f, int level) {
  int shares = level == SQLITE_LOCK_SHARED;
  int rc;
  if (shares && strange((shim_file *)f)) {
    return SQLITE_IOERR_LOCK;
  }
  rc = real(f)->pMethods->xLock(real(f), level);
  if (rc == SQLITE_OK && shares && strange((shim_file *)f)) {
    real(f)->pMethods->xUnlock(real(f), SQLITE_LOCK_NONE);
    return SQLITE_IOERR_LOCK;
  }
  return rc;
}
static int shimUnlock(sqlite3_file *f, int level) {
  return real(f)->pMethods->xUnlock(real(f), level);
}
static int shimCheckReservedLock(sqlite3_file *f, int *out) {
  return real(f)->pMethods->xCheckReservedLock(real(f), out);
}
static int shimSectorSize(sqlite3_file *f) {
  return real(f)->pMethods->xSectorSize(real(f));
}
static int shimDeviceCharacteristics(sqlite3_file *f) {
  return real(f)->pMethods->xDeviceCharacteristics(real(f));
}
static int shimShmMap(sqlite3_file *f, int page, int size, int extend, void volatile **out) {
  shm_record *guard = ((shim_file *)f)->guard;
  int first = page == 0 && ((shim_file *)f)->shm != 0;
  int rc = cut(f) || (first && strange((shim_file *)f)) ? SQLITE_IOERR_SHMMAP
      : real(f)->pMethods->xShmMap(real(f), page, size, extend, out);
  if (rc == SQLITE_OK && first && strange((shim_file *)f)) {
    return SQLITE_IOERR_SHMMAP;
  }
  if (rc == SQLITE_OK && *out != 0 && !sqlwatch_guard_add(guard, page, (void *)*out, (size_t)size)) {
    rc = SQLITE_NOMEM;
  }
  return rc == SQLITE_OK && cut(f) ? SQLITE_IOERR_SHMMAP : rc;
}
static void shimShmBarrier(sqlite3_file *f) {
  real(f)->pMethods->xShmBarrier(real(f));
}
static int shimShmUnmap(sqlite3_file *f, int delete) {
  sqlwatch_guard_forget(((shim_file *)f)->guard);
  return real(f)->pMethods->xShmUnmap(real(f), delete && !cut(f));
}
static int shimFetch(sqlite3_file *f, sqlite3_int64 off, int n, void **out) {
  return real(f)->pMethods->xFetch(real(f), off, n, out);
}
static int shimUnfetch(sqlite3_file *f, sqlite3_int64 off, void *p) {
  return real(f)->pMethods->xUnfetch(real(f), off, p);
}

static int shimClose(sqlite3_file *f) {
  int rc = real(f)->pMethods->xClose(real(f));
  if (((shim_file *)f)->guard) {
    sqlwatch_guard_close(((shim_file *)f)->guard);
  }
  f->pMethods = 0;
  return rc;
}

/* SQLite tells the VFS which connection a file belongs to while it opens it, before the
** connection has read a byte: the moment to forbid the connection everything that it must
** never do. If pragmas did this later, the close after an open that fails half-way could be
** the last one, and would checkpoint and delete the application's WAL. */
static int shimFileControl(sqlite3_file *f, int op, void *arg) {
  if (op == SQLITE_FCNTL_PDB) {
    sqlite3 *db = *(sqlite3 **)arg;
    ((shim_file *)f)->db = db;
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)0);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)0);
    sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, (int *)0);
  }
  if (op == SQLITE_FCNTL_PERSIST_WAL && *(int *)arg < 0 && cut(f)) {
    *(int *)arg = 1; /* SQLite asks whether to keep the WAL at the last close: yes, its content is not known */
    return SQLITE_OK;
  }
  return real(f)->pMethods->xFileControl(real(f), op, arg);
}

int sqlwatch_cut(sqlite3_file *f) {
  return cut(f);
}

static int shimShmLock(sqlite3_file *f, int offset, int n, int flags) {
  shim_file *s = (shim_file *)f;
  return sqlwatchShmLock(s->handle, s->db, f, offset, n, flags);
}

int sqlwatch_real_read(sqlite3_file *f, void *p, int n, long long off) {
  return real(f)->pMethods->xRead(real(f), p, n, off);
}

int sqlwatch_real_shm_lock(sqlite3_file *f, int offset, int n, int flags) {
  if (!(flags & SQLITE_SHM_UNLOCK) && cut(f)) {
    return SQLITE_IOERR_SHMMAP;
  }
  return real(f)->pMethods->xShmLock(real(f), offset, n, flags);
}

void sqlwatch_close_last(sqlite3_file *f) {
  int persist = 0;
  real(f)->pMethods->xFileControl(real(f), SQLITE_FCNTL_PERSIST_WAL, &persist);
  sqlite3_db_config(((shim_file *)f)->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, (int *)0);
}

int sqlwatch_shed(sqlite3_file *f) {
  return real(f)->pMethods->xUnlock(real(f), SQLITE_LOCK_NONE);
}

int sqlwatch_resume(sqlite3_file *f) {
  return real(f)->pMethods->xLock(real(f), SQLITE_LOCK_SHARED);
}

int sqlwatch_claim(sqlite3_file *f) {
  return real(f)->pMethods->xLock(real(f), SQLITE_LOCK_EXCLUSIVE);
}

/* The header's two copies are cleared under every lock that a reader, a writer or a
** checkpoint may hold: SQLite then finds what it finds after a crash of another process,
** and rebuilds the header from the WAL, which is empty. RECOVER is not taken: whoever finds it
** locked, and no header, is refused, but waits where only WRITE is locked. The read locks come
** first: nobody who has none asks for WRITE. */
#define INDEX_SIZE 32768
#define HEADER_COPIES 96
#define WRITE_AND_CKPT 0, 2
#define READ_LOCKS 3, 5
int sqlwatch_forget(sqlite3_file *f, uint32_t change) {
  sqlite3_file *r = real(f);
  void volatile *region = 0;
  int rc = r->pMethods->xShmMap(r, 0, INDEX_SIZE, 0, &region);
  if (rc != SQLITE_OK || region == 0) {
    return rc != SQLITE_OK ? rc : SQLITE_BUSY;
  }
  rc = r->pMethods->xShmLock(r, READ_LOCKS, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
  if (rc != SQLITE_OK || cut(f)) {
    return rc != SQLITE_OK ? rc : SQLITE_IOERR_SHMMAP;
  }
  rc = r->pMethods->xShmLock(r, WRITE_AND_CKPT, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
  if (rc != SQLITE_OK || cut(f)) {
    r->pMethods->xShmLock(r, READ_LOCKS, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
    return rc != SQLITE_OK ? rc : SQLITE_IOERR_SHMMAP;
  }
  /* iChange at 8, mxFrame at 16 */
  if (((uint32_t volatile *)region)[2] == change && ((uint32_t volatile *)region)[4] == 0) {
    memset((void *)region, 0, HEADER_COPIES);
  } else {
    rc = SQLITE_BUSY;
  }
  r->pMethods->xShmBarrier(r);
  r->pMethods->xShmLock(r, WRITE_AND_CKPT, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
  r->pMethods->xShmLock(r, READ_LOCKS, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
  return cut(f) ? SQLITE_IOERR_SHMMAP : rc;
}

static const sqlite3_io_methods shimMethods = {
  3,
  shimClose, shimRead, shimWrite, shimTruncate, shimSync, shimFileSize,
  shimLock, shimUnlock, shimCheckReservedLock, shimFileControl,
  shimSectorSize, shimDeviceCharacteristics,
  shimShmMap, shimShmLock, shimShmBarrier, shimShmUnmap,
  shimFetch, shimUnfetch,
};

/* The WAL file: to truncate a long one takes long, so Go decides how much is cut. */
static int shimWalTruncate(sqlite3_file *f, sqlite3_int64 to) {
  sqlite3_int64 size = 0;
  if (real(f)->pMethods->xFileSize(real(f), &size) == SQLITE_OK && size > to) {
    to = sqlwatchWALTruncate(((shim_file *)f)->handle, size, to);
  }
  return real(f)->pMethods->xTruncate(real(f), to);
}
static int shimWalFileControl(sqlite3_file *f, int op, void *arg) {
  return real(f)->pMethods->xFileControl(real(f), op, arg);
}

static const sqlite3_io_methods shimWalMethods = {
  1,
  shimClose, shimRead, shimWrite, shimWalTruncate, shimSync, shimFileSize,
  shimLock, shimUnlock, shimCheckReservedLock, shimWalFileControl,
  shimSectorSize, shimDeviceCharacteristics,
  0, 0, 0, 0, 0, 0,
};

/* The main database file and its WAL are wrapped; the rest is opened by the default
** VFS in the very memory SQLite gave us. */
static int shimOpen(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *outFlags) {
  shim_file *s = (shim_file *)f;
  const char *database = name;
  sqlite3_int64 wal;
  int persist = 1;
  int rc;
  (void)vfs;
  if (!(flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL))) {
    return realVfs->xOpen(realVfs, name, f, flags, outFlags);
  }
  memset(s, 0, sizeof *s);
  if (flags & SQLITE_OPEN_WAL) {
    database = sqlite3_filename_database(name);
  }
  s->handle = (uintptr_t)sqlite3_uri_int64(database, "sqlwatch", 0);
  wal = sqlite3_uri_int64(database, "sqlwatch_wal", 0);
  if (flags & SQLITE_OPEN_WAL && wal != 0) {
    flags &= ~SQLITE_OPEN_CREATE;
  }
  rc = realVfs->xOpen(realVfs, name, real(f), flags, outFlags);
  if (flags & SQLITE_OPEN_WAL && other(name, "", wal)) {
    if (rc == SQLITE_OK) {
      real(f)->pMethods->xClose(real(f));
      rc = SQLITE_CANTOPEN;
    }
    sqlwatchStrange(s->handle);
  }
  if (rc != SQLITE_OK) {
    return rc;
  }
  if (!(flags & SQLITE_OPEN_WAL) && (s->guard = sqlwatch_guard_open()) == 0) {
    real(f)->pMethods->xClose(real(f));
    return SQLITE_NOMEM;
  }
  if (flags & SQLITE_OPEN_WAL) {
    s->base.pMethods = &shimWalMethods;
    return SQLITE_OK;
  }
  if (real(f)->pMethods->iVersion < 3) {
    sqlwatch_guard_close(s->guard);
    real(f)->pMethods->xClose(real(f));
    return SQLITE_CANTOPEN;
  }
  real(f)->pMethods->xFileControl(real(f), SQLITE_FCNTL_PERSIST_WAL, &persist);
  s->name = name;
  s->wal = wal;
  s->shm = sqlite3_uri_int64(name, "sqlwatch_shm", 0);
  s->base.pMethods = &shimMethods;
  return SQLITE_OK;
}

/* A connection reserves some 160 kB before it is used: a lookaside buffer and
** twenty pages. Of a thousand databases with three connections each that is half
** a gigabyte, for speed that makes no difference here. Where SQLite has been
** initialized before, both calls fail and change nothing. */
static void spareMemory(void) {
  sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0);
  sqlite3_config(SQLITE_CONFIG_PAGECACHE, (void *)0, 0, 0);
}

/* glibc keeps what was freed, in an arena for each of a dozen threads. */
void sqlwatch_return_memory(void) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

/* The copy keeps the default VFS's pAppData and sizes, so its other methods
** find in our structure what they would find in their own. */
static void buildVfs(void) {
  spareMemory();
  if (sqlite3_initialize() != SQLITE_OK) {
    return;
  }
  realVfs = sqlite3_vfs_find(0);
  if (realVfs == 0 || !sqlwatch_guard_install()) {
    realVfs = 0;
    return;
  }
  shimVfs = *realVfs;
  shimVfs.pNext = 0;
  shimVfs.zName = "sqlwatch";
  shimVfs.szOsFile = (int)sizeof(shim_file) + realVfs->szOsFile;
  shimVfs.xOpen = shimOpen;
}

int sqlwatch_shim_register(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, buildVfs);
  if (realVfs == 0) {
    return SQLITE_CANTOPEN;
  }
  return sqlite3_vfs_register(&shimVfs, 0);
}
