package upload

import (
	"context"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/sumlist"
)

// listed makes body collect its page checksums while it is read, if such a list is kept for
// this key.
func (u *Uploader) listed(key string, body *store.Body) *sumlist.List {
	list := sumlist.New(u.scratch)
	if _, kept := sumsKey(key); kept {
		body.Open = list.Tap(body.Open)
	}
	return list
}

// storeSums stores the list beside its file. Without the list, a lost state directory costs a
// download of the file, nothing else; so an error is only logged.
func (u *Uploader) storeSums(ctx context.Context, key string, list *sumlist.List) {
	body, made := list.Body()
	name, kept := sumsKey(key)
	if !made || !kept {
		return
	}
	err := u.lease.During(ctx, func(ctx context.Context) error {
		_, err := u.store.Put(ctx, name, body, store.PutOptions{Metadata: map[string]string{store.MetaSHA256: body.SHA256}})
		return err
	})
	if err != nil {
		u.log.Info("page checksums could not be stored beside a file; only needed after a loss of the state directory",
			"key", name, "err", err)
	}
}

func sumsKey(key string) (name string, kept bool) {
	level, min, max, err := store.ParseLTXKey(key)
	if err != nil {
		return "", false
	}
	return store.SumsKey(level, min, max)
}
