//go:build linux

/* SQLite maps the wal-index. A process that may write to the -shm file may also truncate it,
** and an access to a mapping beyond the end of its file raises SIGBUS, which would end this
** process, and with it the work for all other databases. So where the fault is in a wal-index
** of ours, the handler replaces all of that mapping by anonymous memory, and marks the
** connections that share it: they get no lock and write to no file any more, until they are
** closed. Nothing that SQLite makes of the zeros it finds there reaches a file or another
** process. All other faults go to the handler that was there before: Go's. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shim.h"

#define CHUNK 32

typedef struct chunk {
  char *at[CHUNK];
  size_t size[CHUNK];
  int n;
  struct chunk *next;
} chunk;

/* The regions that one connection has mapped. Records are reused and never freed, because the
** handler may be reading them. */
struct shm_record {
  atomic_int cut;
  int used;
  char *first; /* region 0: the same for all connections of one wal-index */
  chunk regions;
  struct shm_record *next;
};

static struct shm_record *records;
static struct sigaction before;
static atomic_flag busy = ATOMIC_FLAG_INIT;

/* No code between the two touches a mapping, so the handler never waits for its own thread. */
static void lock(void) {
  while (atomic_flag_test_and_set_explicit(&busy, memory_order_acquire)) {
    sched_yield();
  }
}
static void unlock(void) {
  atomic_flag_clear_explicit(&busy, memory_order_release);
}

/* lock and unlock for code outside of the handler: all signals are blocked in between. */
static void enter(sigset_t *was) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, was);
  lock();
}
static void leave(const sigset_t *was) {
  unlock();
  pthread_sigmask(SIG_SETMASK, was, 0);
}

static int holds(const struct shm_record *r, const char *at) {
  const chunk *c;
  int i;
  for (c = &r->regions; c; c = c->next) {
    for (i = 0; i < c->n; i++) {
      if (c->at[i] <= at && at < c->at[i] + c->size[i]) {
        return 1;
      }
    }
  }
  return 0;
}

/* cut replaces the regions of a record. A region that was replaced before, for another
** record, is replaced by zeros again. */
static int cut(struct shm_record *r) {
  chunk *c;
  int i;
  atomic_store(&r->cut, 1);
  for (c = &r->regions; c; c = c->next) {
    for (i = 0; i < c->n; i++) {
      if (mmap(c->at[i], c->size[i], PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
          MAP_FAILED) {
        return 0;
      }
    }
  }
  return 1;
}

/* cutAll replaces the wal-index that the address is in, for all connections that share it. It
** returns 0 where the address is in none, or where that failed. */
static int cutAll(const char *at) {
  struct shm_record *r, *other;
  int all = 0;
  lock();
  for (r = records; r; r = r->next) {
    if (!r->used || !holds(r, at)) {
      continue;
    }
    all = 1;
    for (other = records; other; other = other->next) {
      if (other->used && other->first == r->first) {
        all = cut(other) && all;
      }
    }
    break;
  }
  unlock();
  return all;
}

static void onBus(int signal, siginfo_t *info, void *context) {
  if (info->si_code == BUS_ADRERR && cutAll(info->si_addr)) {
    return; /* the instruction is repeated, on zeros */
  }
  if (before.sa_flags & SA_SIGINFO) {
    before.sa_sigaction(signal, info, context);
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(signal);
  } else {
    sigaction(signal, &before, 0); /* and the fault comes again */
  }
}

int sqlwatch_guard_install(void) {
  struct sigaction a;
  if (sigaction(SIGBUS, 0, &before) != 0) {
    return 0;
  }
  memset(&a, 0, sizeof a);
  a.sa_sigaction = onBus;
  a.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigfillset(&a.sa_mask);
  return sigaction(SIGBUS, &a, 0) == 0;
}

struct shm_record *sqlwatch_guard_open(void) {
  struct shm_record *r;
  sigset_t was;
  enter(&was);
  for (r = records; r && r->used; r = r->next) {
  }
  if (r) {
    r->used = 1;
  }
  leave(&was);
  if (r) {
    return r;
  }
  r = calloc(1, sizeof *r);
  if (r == 0) {
    return 0;
  }
  r->used = 1;
  enter(&was);
  r->next = records;
  records = r;
  leave(&was);
  return r;
}

int sqlwatch_guard_add(struct shm_record *r, int region, void *at, size_t size) {
  chunk *c, *fresh = 0;
  sigset_t was;
  if (holds(r, at)) {
    return 1;
  }
  for (c = &r->regions; c->n == CHUNK && c->next; c = c->next) {
  }
  if (c->n == CHUNK) {
    fresh = calloc(1, sizeof *fresh);
    if (fresh == 0) {
      return 0;
    }
  }
  enter(&was);
  if (region == 0) {
    const struct shm_record *other;
    r->first = at;
    for (other = records; other; other = other->next) { /* a connection that joins a cut mapping is cut too */
      if (other->used && other->first == r->first && atomic_load(&((struct shm_record *)other)->cut)) {
        atomic_store(&r->cut, 1);
      }
    }
  }
  if (fresh) {
    c->next = fresh;
    c = fresh;
  }
  c->at[c->n] = at;
  c->size[c->n] = size;
  c->n++;
  leave(&was);
  return 1;
}

void sqlwatch_guard_forget(struct shm_record *r) {
  chunk *c;
  sigset_t was;
  enter(&was);
  for (c = &r->regions; c; c = c->next) {
    c->n = 0;
  }
  r->first = 0;
  leave(&was);
}

void sqlwatch_guard_close(struct shm_record *r) {
  sigset_t was;
  sqlwatch_guard_forget(r);
  enter(&was);
  atomic_store(&r->cut, 0);
  r->used = 0;
  leave(&was);
}

int sqlwatch_guard_cut(const struct shm_record *r) {
  return r != 0 && atomic_load(&((struct shm_record *)r)->cut);
}
