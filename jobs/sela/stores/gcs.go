package stores

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"cloud.google.com/go/storage"
	"gocloud.dev/blob"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
)

// openGCS does what the driver's own opener does, which warns of missing
// credentials on standard output.
func openGCS(ctx context.Context, u *url.URL) (*blob.Bucket, error) {
	opener := gcsblob.URLOpener{Client: gcp.NewAnonymousHTTPClient(transport)}
	plain, query := *u, u.Query()
	anonymous := false
	if value := query.Get("anonymous"); value != "" {
		var err error
		if anonymous, err = strconv.ParseBool(value); err != nil {
			return nil, fmt.Errorf("parameter anonymous: %w", err)
		}
	}
	query.Del("anonymous") // with it the driver would take another transport
	plain.RawQuery = query.Encode()
	if !anonymous {
		credentials, err := gcp.DefaultCredentials(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: log in with gcloud auth application-default login, name a key file in GOOGLE_APPLICATION_CREDENTIALS, or use ?anonymous=true", err)
		}
		opener.TokenSource = gcp.CredentialsTokenSource(credentials)
		if opener.Client, err = gcp.NewHTTPClient(transport, opener.TokenSource); err != nil {
			return nil, err
		}
	}
	// With STORAGE_EMULATOR_HOST the driver would take a client of its own.
	opener.Options.ClientOptions = []option.ClientOption{option.WithHTTPClient(&opener.Client.Client)}
	b, err := opener.OpenBucketURL(ctx, &plain)
	if err != nil {
		return nil, err
	}
	var client *storage.Client
	if b.As(&client) {
		client.SetRetry(storage.WithPolicy(storage.RetryNever))
	}
	return b, nil
}

// gcsETag is the object's generation: readers tell no entity tag.
func gcsETag(as func(any) bool) string {
	var attrs storage.ObjectAttrs // of a listing and of Attributes
	var read *storage.Reader
	var generation int64
	switch {
	case as(&attrs):
		generation = attrs.Generation
	case as(&read):
		generation = read.Attrs.Generation
	}
	if generation == 0 {
		return ""
	}
	return strconv.FormatInt(generation, 10)
}

func gcsAnswer(err error) (status int, code string) {
	var answer *googleapi.Error
	var token *oauth2.RetrieveError
	switch {
	case errors.Is(err, storage.ErrObjectNotExist):
		return http.StatusNotFound, ""
	case errors.Is(err, storage.ErrBucketNotExist):
		return http.StatusNotFound, "NoSuchBucket"
	case errors.As(err, &answer):
		return answer.Code, ""
	case errors.As(err, &token):
		if token.Response != nil {
			status = token.Response.StatusCode
		}
		return status, token.ErrorCode
	}
	return 0, ""
}
