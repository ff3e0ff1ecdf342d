package stores

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"
)

// openS3 opens an s3:// URL as its driver does, and then again with another
// client: the driver's has retries.
func openS3(ctx context.Context, u *url.URL) (*blob.Bucket, error) {
	var opener s3blob.URLOpener
	b, err := opener.OpenBucketURL(ctx, u)
	if err != nil {
		return nil, err
	}
	var client *s3.Client
	if !b.As(&client) {
		return nil, errors.Join(fmt.Errorf("driver s3 has no client"), b.Close())
	}
	// Closing the first bucket would do nothing.
	client = s3.New(client.Options(), func(o *s3.Options) {
		o.Retryer = aws.NopRetryer{}
		o.HTTPClient = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a request is signed for its host
		}}
	})
	return s3blob.OpenBucket(ctx, client, u.Host, &opener.Options)
}

func s3ETag(as func(any) bool) string {
	var listed types.Object
	var read s3.GetObjectOutput
	var head s3.HeadObjectOutput
	switch {
	case as(&listed):
		return aws.ToString(listed.ETag)
	case as(&read):
		return aws.ToString(read.ETag)
	case as(&head):
		return aws.ToString(head.ETag)
	}
	return ""
}

func s3Answer(err error) (status int, code string) {
	// The chain of credentials ends in an untyped error, which can hold the
	// answer of another service.
	if text := err.Error(); strings.Contains(text, "get credentials:") {
		if strings.Contains(text, "expired") {
			return http.StatusUnauthorized, "ExpiredToken"
		}
		return http.StatusUnauthorized, "NoCredentials"
	}
	var answer interface{ HTTPStatusCode() int }
	if errors.As(err, &answer) {
		status = answer.HTTPStatusCode()
	}
	var api interface{ ErrorCode() string }
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	return status, code
}
