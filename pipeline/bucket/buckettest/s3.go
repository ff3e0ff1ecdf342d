package buckettest

import (
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	_ "gocloud.dev/blob/s3blob" // registers s3://
)

// S3 starts an S3 server on the loopback interface, in memory, which the test's
// end stops, and returns the URL of an empty bucket on it, whose path and
// parameters can be extended. It sets the credentials in the environment, so
// the test must not be parallel.
func S3(t testing.TB, name string) *url.URL {
	t.Helper()
	for variable, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": "",
		"AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE":           "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(variable, value)
	}
	backend := s3mem.New()
	if err := backend.CreateBucket(name); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	return &url.URL{Scheme: "s3", Host: name, RawQuery: url.Values{
		"endpoint":           {server.URL},
		"region":             {"us-east-1"},
		"use_path_style":     {"true"},
		"hostname_immutable": {"true"},
	}.Encode()}
}

// S3ETag is the ETag option for s3:// buckets.
func S3ETag(as func(any) bool) string {
	var tag *string
	var listed types.Object
	var read s3.GetObjectOutput
	if as(&listed) {
		tag = listed.ETag
	} else if as(&read) {
		tag = read.ETag
	}
	if tag == nil {
		return ""
	}
	return *tag
}
