package main

import (
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	// Importing a driver makes its URLs known: s3://bucket/prefix?region=…
	_ "gocloud.dev/blob/s3blob"
)

// idleConnections is how many connections to a store are kept for the next
// requests. The SDK keeps 10, so that nearly each of extract's requests, some
// hundreds at a time, would connect anew.
const idleConnections = 512

func init() {
	awshttp.DefaultHTTPTransportMaxIdleConns = idleConnections
	awshttp.DefaultHTTPTransportMaxIdleConnsPerHost = idleConnections
}

// entityTag reads the entity tag from the provider's own types, so that an
// object replaced since the listing is noticed.
func entityTag(as func(any) bool) string {
	var listed types.Object
	if as(&listed) && listed.ETag != nil {
		return *listed.ETag
	}
	var read s3.GetObjectOutput
	if as(&read) && read.ETag != nil {
		return *read.ETag
	}
	return ""
}
