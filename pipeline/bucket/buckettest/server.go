package buckettest

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// Schemes are those of the stores that `make test-stores` runs.
var Schemes = []string{"s3", "gs", "azblob"}

// Server returns the URL of an empty place, a prefix of its own, on the store
// of a scheme that `make test-stores` runs (see jobs/setup/stores.sh). Where none
// runs the test is skipped, or fails if SELA_REQUIRE_STORES is set.
func Server(t testing.TB, scheme string) *url.URL {
	t.Helper()
	for raw := range strings.FieldsSeq(os.Getenv("SELA_STORES")) {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatalf("SELA_STORES: %v", err)
		}
		if u.Scheme == scheme {
			u.Path = "/" + strings.ToLower(rand.Text())
			return u
		}
	}
	const how = "no store for %s:// runs here: use make test-stores"
	if os.Getenv("SELA_REQUIRE_STORES") != "" {
		t.Fatalf(how, scheme)
	}
	t.Skipf(how, scheme)
	return nil
}

// MakeContainer makes the container that b is, if b is one of Azure's and it is
// missing: the other servers' buckets are made when they start. b is a bucket of
// package blob or of package bucket.
func MakeContainer(ctx context.Context, b interface{ As(any) bool }) error {
	var client *container.Client
	if !b.As(&client) {
		return nil
	}
	_, err := client.Create(ctx, nil)
	if bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
		return nil
	}
	return err
}

// emulator names the server that gs:// URLs with anonymous=true lead to.
const emulator = "STORAGE_EMULATOR_HOST"

func emulatorHost(t testing.TB) string {
	t.Helper()
	host := os.Getenv(emulator)
	if host == "" {
		t.Fatalf("%s is not set: use make test-stores", emulator)
	}
	return strings.TrimPrefix(host, "http://")
}
