// Package stores makes the object stores of the large providers known to
// package bucket. Importing it is enough:
//
//	s3://BUCKET/PREFIX?region=…    Amazon S3 and what speaks its protocol
//	gs://BUCKET/PREFIX             Google Cloud Storage
//	azblob://CONTAINER/PREFIX      Azure Blob Storage
//
// Credentials come from where the provider's own tools look: AWS_* and the
// files of its command line; application default credentials; AZURE_STORAGE_*
// or Azure's default credential. Parameters of URLs are those of the gocloud
// drivers; `anonymous=true` (s3, gs) uses none, as servers for tests want it.
//
// The drivers' clients are opened without the retries of their SDKs, which are
// package bucket's, and share one pool of connections.
//
// Keys are the objects' own names. What no provider's client can send (on S3 and
// Google Cloud Storage line ends and "../") is escaped by the gocloud drivers;
// Azure itself takes a backslash for a slash.
package stores

import (
	"context"
	"net/http"
	"net/url"

	"gocloud.dev/blob"
	"sela/pipeline/bucket"
)

// idleConnections is how many connections to a store are kept for the next
// requests: extract makes some hundreds at a time.
const idleConnections = 512

// transport carries the requests to all stores.
var transport = newTransport()

func newTransport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = idleConnections, idleConnections
	return bucket.Transport(t)
}

func init() {
	for scheme, open := range map[string]func(context.Context, *url.URL) (*blob.Bucket, error){
		"s3": openS3, "gs": openGCS, "azblob": openAzure,
	} {
		p := bucket.Provider{Open: open, ETag: etags[scheme], Answer: answers[scheme], Secrets: secrets}
		bucket.Register(scheme, p)
	}
}

var (
	etags   = map[string]func(as func(any) bool) string{"s3": s3ETag, "gs": gcsETag, "azblob": azureETag}
	answers = map[string]func(error) (int, string){"s3": s3Answer, "gs": gcsAnswer, "azblob": azureAnswer}
)
