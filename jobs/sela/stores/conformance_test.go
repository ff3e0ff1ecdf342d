package stores

import (
	"context"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"gocloud.dev/blob"
	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
)

var opens = map[string]func(context.Context, *url.URL) (*blob.Bucket, error){"s3": openS3, "gs": openGCS, "azblob": openAzure}

// serve opens an empty place on a store.
func serve(t *testing.T, scheme string) *blob.Bucket {
	t.Helper()
	u := buckettest.Server(t, scheme)
	prefix := strings.Trim(u.Path, "/") + "/"
	u.Path = ""
	b, err := opens[scheme](t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	if err := buckettest.MakeContainer(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return blob.PrefixedBucket(b, prefix)
}

func TestStoreConformance(t *testing.T) {
	for _, scheme := range buckettest.Schemes {
		t.Run(scheme, func(t *testing.T) {
			buckettest.Server(t, scheme)
			// make test-stores lists 100,000, but fewer on a server that goes through
			// all objects for each one it stores.
			keys, _ := strconv.Atoi(os.Getenv("SELA_STORES_KEYS"))
			if scheme == "gs" {
				keys = min(keys, 5_000)
			}
			buckettest.Run(t, func(t *testing.T) *blob.Bucket { return serve(t, scheme) },
				buckettest.Options{ETag: etags[scheme], Answer: answers[scheme], Keys: keys, NoBackslash: scheme == "azblob"})
		})
	}
}

// TestStoreTags: the tags of a listing, of attributes and of a reader agree, so
// that an object replaced since the listing is noticed.
func TestStoreTags(t *testing.T) {
	for _, scheme := range buckettest.Schemes {
		t.Run(scheme, func(t *testing.T) {
			u := buckettest.Server(t, scheme)
			b, err := bucket.Open(t.Context(), u.String(), bucket.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			var tags []string
			for _, data := range []string{"one", "two"} {
				if err := b.Put(t.Context(), "key", []byte(data)); err != nil {
					t.Fatal(err)
				}
				o, err := b.Stat(t.Context(), "key")
				if err != nil {
					t.Fatal(err)
				}
				r, err := b.NewReader(t.Context(), "key", 1, 2)
				if err != nil {
					t.Fatal(err)
				}
				r.Close()
				err = b.List(t.Context(), "", func(listed bucket.Object) error {
					if o.ETag == "" || listed.ETag != o.ETag || r.Object().ETag != o.ETag {
						t.Errorf("tags: listed %s, stat %s, read %s", listed.ETag, o.ETag, r.Object().ETag)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				tags = append(tags, o.ETag)
			}
			if tags[0] == tags[1] {
				t.Errorf("an object that was replaced keeps its tag %s", tags[0])
			}
		})
	}
}

func TestMain(m *testing.M) {
	// The tests that need none of the servers must not find anything here.
	if os.Getenv("SELA_STORES") == "" {
		for _, name := range secretVariables {
			os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}
