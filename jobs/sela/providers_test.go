package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
)

// TestConnectionsAreKept: as many requests at a time as extract makes use the
// same connections again and again.
func TestConnectionsAreKept(t *testing.T) {
	const requests, waves = 100, 5
	ctx := context.Background()
	u := buckettest.S3(t, "kept")
	q := u.Query()
	behind, err := url.Parse(q.Get("endpoint"))
	if err != nil {
		t.Fatal(err)
	}
	var made atomic.Int64
	var wave atomic.Pointer[sync.WaitGroup]
	proxy := httputil.NewSingleHostReverseProxy(behind)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if all := wave.Load(); all != nil { // all of a wave are under way at once
			all.Done()
			all.Wait()
		}
		proxy.ServeHTTP(w, r)
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			made.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	q.Set("endpoint", server.URL)
	u.RawQuery = q.Encode()
	b, err := bucket.Open(ctx, u.String(), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for i := range requests {
		if err := b.Put(ctx, fmt.Sprint(i), []byte("image")); err != nil {
			t.Fatal(err)
		}
	}
	for range waves {
		var together, ended sync.WaitGroup
		together.Add(requests)
		wave.Store(&together)
		for i := range requests {
			ended.Go(func() {
				if err := b.ReadRange(ctx, fmt.Sprint(i), 0, make([]byte, 5)); err != nil {
					t.Error(err)
				}
			})
		}
		ended.Wait()
	}
	// A connection can come back too late for the next wave.
	if n := made.Load(); n > 2*requests {
		t.Errorf("%d connections were made for %d waves of %d requests", n, waves, requests)
	}
}
