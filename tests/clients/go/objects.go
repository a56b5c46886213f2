package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/iterator"
)

const bigBytes = 20 << 20

// objects: buckets and objects, up, down, conditions, lists, signed URLs.
func objects(ctx context.Context, w *world) {
	client := must(storage.NewClient(ctx))
	defer client.Close()
	bucket := client.Bucket(w.project + "-go")
	check("made", bucket.Create(ctx, w.project, &storage.BucketAttrs{Location: region, Labels: map[string]string{"by": "go"}}), nil)
	check("a bucket", must(bucket.Attrs(ctx)).Labels, map[string]string{"by": "go"})
	check("buckets", must(client.Buckets(ctx, w.project).Next()) != nil, true)
	refusedHTTP("a bucket twice", 409, bucket.Create(ctx, w.project, nil))

	text := bucket.Object("a/text")
	write(ctx, text, []byte("夏の星"), func(to *storage.Writer) {
		to.ContentType, to.Metadata, to.ChunkSize = "text/plain", map[string]string{"k": "v"}, 0
	})
	check("down", string(read(text.NewReader(ctx))), "夏の星")
	attrs := must(text.Attrs(ctx))
	check("metadata", []any{attrs.ContentType, attrs.Size, attrs.Metadata}, []any{"text/plain", int64(9), map[string]string{"k": "v"}})
	changed := must(text.Update(ctx, storage.ObjectAttrsToUpdate{Metadata: map[string]string{"l": "w"}, CacheControl: "no-store"}))
	check("other metadata", []any{changed.Metadata["l"], changed.Metageneration}, []any{"w", int64(2)})
	to := text.If(storage.Conditions{DoesNotExist: true}).NewWriter(ctx)
	must(to.Write([]byte("x")))
	refusedHTTP("a generation", 412, to.Close())
	write(ctx, text.If(storage.Conditions{GenerationMatch: attrs.Generation}), []byte("two"), nil)
	check("as it was", string(read(text.NewReader(ctx))), "two")
	_, err := bucket.Object("none").NewReader(ctx)
	check("no object", errors.Is(err, storage.ErrObjectNotExist), true)

	// In chunks; the reader checks the hash.
	content := make([]byte, bigBytes)
	must(rand.Read(content))
	big := bucket.Object("big")
	write(ctx, big, content, func(to *storage.Writer) { to.ChunkSize = 4 << 20 })
	check("as it went up", bytes.Equal(read(big.NewReader(ctx)), content), true)
	sum := md5.Sum(content)
	check("its hash", must(big.Attrs(ctx)).MD5, sum[:])
	check("a range", read(big.NewRangeReader(ctx, 10, 10)), content[10:20])
	check("the end", read(big.NewRangeReader(ctx, -3, -1)), content[bigBytes-3:])

	must(bucket.Object("a/copy").CopierFrom(text).Run(ctx))
	must(bucket.Object("both").ComposerFrom(text, bucket.Object("a/copy")).Run(ctx))
	check("composed", string(read(bucket.Object("both").NewReader(ctx))), "twotwo")
	check("a list", list(ctx, bucket, &storage.Query{Prefix: "a/"}), "a/copy a/text")
	check("folders", list(ctx, bucket, &storage.Query{Delimiter: "/"}), "big both a/")
	moved := must(bucket.Object("both").Move(ctx, storage.MoveObjectDestination{Object: "moved", Conditions: &storage.Conditions{DoesNotExist: true}}))
	check("moved in one step", []string{moved.Name, list(ctx, bucket, &storage.Query{Delimiter: "/"})}, []string{"moved", "big moved a/"})

	// Signed by a key of an account, used by whoever has them.
	key := must(google.JWTConfigFromJSON(must(os.ReadFile(w.keyFile))))
	sign := func(method, contentType string) string {
		return must(bucket.SignedURL("signed", &storage.SignedURLOptions{Scheme: storage.SigningSchemeV4, Method: method, ContentType: contentType,
			Expires: time.Now().Add(time.Hour), GoogleAccessID: key.Email, PrivateKey: key.PrivateKey}))
	}
	put := must(http.NewRequest("PUT", sign("PUT", "text/plain"), strings.NewReader("by URL")))
	put.Header.Set("Content-Type", "text/plain")
	check("PUT by a URL", must(http.DefaultClient.Do(put)).StatusCode, 200)
	url := sign("GET", "")
	answer := must(http.Get(url))
	check("GET by a URL", string(read(answer.Body, nil)), "by URL")
	check("another object", must(http.Get(strings.Replace(url, "/signed?", "/big?", 1))).StatusCode, 403)

	refusedHTTP("not empty", 409, bucket.Delete(ctx))
	for _, name := range strings.Fields(list(ctx, bucket, nil)) {
		check("an object deleted", bucket.Object(name).Delete(ctx), nil)
	}
	check("deleted", bucket.Delete(ctx), nil)
	_, err = bucket.Attrs(ctx)
	check("it is gone", errors.Is(err, storage.ErrBucketNotExist), true)
}

func write(ctx context.Context, object *storage.ObjectHandle, content []byte, set func(*storage.Writer)) {
	to := object.NewWriter(ctx)
	if set != nil {
		set(to)
	}
	must(to.Write(content))
	check("up", to.Close(), nil)
}

func read[R io.ReadCloser](from R, err error) []byte {
	defer must(from, err).Close()
	return must(io.ReadAll(from))
}

// list of names, then prefixes.
func list(ctx context.Context, bucket *storage.BucketHandle, query *storage.Query) string {
	var names, prefixes []string
	for all := bucket.Objects(ctx, query); ; {
		one, err := all.Next()
		if errors.Is(err, iterator.Done) {
			return strings.Join(append(names, prefixes...), " ")
		}
		if must(one, err).Prefix != "" {
			prefixes = append(prefixes, one.Prefix)
		} else {
			names = append(names, one.Name)
		}
	}
}
