/* The part of SQLite's public interface that shim.c needs, written out here
** because the driver does not export its header. Layouts and values are fixed
** by SQLite's compatibility promise. */
#ifndef SQLWATCH_SHIM_H
#define SQLWATCH_SHIM_H

#include <stddef.h>
#include <stdint.h>

#define SQLITE_OK 0
#define SQLITE_BUSY 5
#define SQLITE_INTERRUPT 9
#define SQLITE_CANTOPEN 14
#define SQLITE_NOMEM 7
#define SQLITE_IOERR_LOCK (10 | (15 << 8))
#define SQLITE_IOERR_SHMMAP (10 | (21 << 8))

#define SQLITE_CONFIG_PAGECACHE 7
#define SQLITE_CONFIG_LOOKASIDE 13
#define SQLITE_LOCK_NONE 0
#define SQLITE_LOCK_SHARED 1
#define SQLITE_LOCK_EXCLUSIVE 4
#define SQLITE_OPEN_CREATE 0x00000004
#define SQLITE_OPEN_MAIN_DB 0x00000100
#define SQLITE_OPEN_WAL 0x00080000
#define SQLITE_FCNTL_PERSIST_WAL 10
#define SQLITE_FCNTL_PDB 30
#define SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE 1006
#define SQLITE_DBCONFIG_DEFENSIVE 1010
#define SQLITE_DBCONFIG_TRUSTED_SCHEMA 1017

#define SQLITE_SHM_NLOCK 8
#define SQLITE_SHM_UNLOCK 1
#define SQLITE_SHM_LOCK 2
#define SQLITE_SHM_SHARED 4
#define SQLITE_SHM_EXCLUSIVE 8

typedef struct sqlite3 sqlite3;
typedef long long sqlite3_int64;
typedef struct sqlite3_file sqlite3_file;
typedef struct sqlite3_vfs sqlite3_vfs;
typedef struct sqlite3_io_methods sqlite3_io_methods;

struct sqlite3_file {
  const sqlite3_io_methods *pMethods;
};

struct sqlite3_io_methods {
  int iVersion;
  int (*xClose)(sqlite3_file *);
  int (*xRead)(sqlite3_file *, void *, int, sqlite3_int64);
  int (*xWrite)(sqlite3_file *, const void *, int, sqlite3_int64);
  int (*xTruncate)(sqlite3_file *, sqlite3_int64);
  int (*xSync)(sqlite3_file *, int);
  int (*xFileSize)(sqlite3_file *, sqlite3_int64 *);
  int (*xLock)(sqlite3_file *, int);
  int (*xUnlock)(sqlite3_file *, int);
  int (*xCheckReservedLock)(sqlite3_file *, int *);
  int (*xFileControl)(sqlite3_file *, int, void *);
  int (*xSectorSize)(sqlite3_file *);
  int (*xDeviceCharacteristics)(sqlite3_file *);
  int (*xShmMap)(sqlite3_file *, int, int, int, void volatile **);
  int (*xShmLock)(sqlite3_file *, int, int, int);
  void (*xShmBarrier)(sqlite3_file *);
  int (*xShmUnmap)(sqlite3_file *, int);
  int (*xFetch)(sqlite3_file *, sqlite3_int64, int, void **);
  int (*xUnfetch)(sqlite3_file *, sqlite3_int64, void *);
};

struct sqlite3_vfs {
  int iVersion;
  int szOsFile;
  int mxPathname;
  sqlite3_vfs *pNext;
  const char *zName;
  void *pAppData;
  int (*xOpen)(sqlite3_vfs *, const char *, sqlite3_file *, int, int *);
  int (*xDelete)(sqlite3_vfs *, const char *, int);
  int (*xAccess)(sqlite3_vfs *, const char *, int, int *);
  int (*xFullPathname)(sqlite3_vfs *, const char *, int, char *);
  void *(*xDlOpen)(sqlite3_vfs *, const char *);
  void (*xDlError)(sqlite3_vfs *, int, char *);
  void (*(*xDlSym)(sqlite3_vfs *, void *, const char *))(void);
  void (*xDlClose)(sqlite3_vfs *, void *);
  int (*xRandomness)(sqlite3_vfs *, int, char *);
  int (*xSleep)(sqlite3_vfs *, int);
  int (*xCurrentTime)(sqlite3_vfs *, double *);
  int (*xGetLastError)(sqlite3_vfs *, int, char *);
  int (*xCurrentTimeInt64)(sqlite3_vfs *, sqlite3_int64 *);
  int (*xSetSystemCall)(sqlite3_vfs *, const char *, void (*)(void));
  void (*(*xGetSystemCall)(sqlite3_vfs *, const char *))(void);
  const char *(*xNextSystemCall)(sqlite3_vfs *, const char *);
};

int sqlite3_config(int, ...);
int sqlite3_initialize(void);
sqlite3_vfs *sqlite3_vfs_find(const char *);
int sqlite3_vfs_register(sqlite3_vfs *, int);
sqlite3_int64 sqlite3_uri_int64(const char *, const char *, sqlite3_int64);
const char *sqlite3_filename_database(const char *);
int sqlite3_db_config(sqlite3 *, int, ...);
void sqlite3_interrupt(sqlite3 *);

/* sqlwatch_shim_register makes the VFS "sqlwatch" known, once a process. */
int sqlwatch_shim_register(void);

/* sqlwatch_real_read and sqlwatch_real_shm_lock are the wrapped VFS's xRead and xShmLock
** for a file of ours. */
int sqlwatch_real_read(sqlite3_file *f, void *p, int n, long long off);
int sqlwatch_real_shm_lock(sqlite3_file *, int offset, int n, int flags);

/* sqlwatch_close_last makes the connection's close an ordinary one: if it is the last
** connection of all, SQLite checkpoints, and removes the WAL and the wal-index. */
void sqlwatch_close_last(sqlite3_file *);

/* sqlwatch_shed gives up the lock on the main file, sqlwatch_resume takes it again. */
int sqlwatch_shed(sqlite3_file *);
int sqlwatch_resume(sqlite3_file *);

/* sqlwatch_claim takes the EXCLUSIVE lock on the main file for a connection that holds
** SHARED; the connection's close releases it. SQLITE_BUSY where anybody else is connected. */
int sqlwatch_claim(sqlite3_file *);

/* sqlwatch_forget clears the header of an empty WAL's wal-index, so that the next reader
** rebuilds it. SQLITE_BUSY where anybody holds one of its locks, or where it has frames or
** another commit counter than change. */
int sqlwatch_forget(sqlite3_file *, uint32_t change);

/* sqlwatch_cut reports whether the wal-index was truncated under the connection, which is
** then of no more use: see shmguard.c. */
int sqlwatch_cut(sqlite3_file *);

/* The guard of mapped wal-indexes. It is installed once in a process; each connection then
** has one record, to which its mapped regions are added, and which forgets them before they
** are unmapped. */
typedef struct shm_record shm_record;
int sqlwatch_guard_install(void);
shm_record *sqlwatch_guard_open(void);
int sqlwatch_guard_add(shm_record *, int region, void *at, size_t size);
void sqlwatch_guard_forget(shm_record *);
void sqlwatch_guard_close(shm_record *);
int sqlwatch_guard_cut(const shm_record *);

/* sqlwatch_return_memory gives freed memory back to the kernel. */
void sqlwatch_return_memory(void);

#endif
