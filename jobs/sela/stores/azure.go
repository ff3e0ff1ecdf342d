package stores

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob"
	"gocloud.dev/blob/azureblob"
)

// openAzure opens an azblob:// URL with a client that leaves retries alone.
func openAzure(ctx context.Context, u *url.URL) (*blob.Bucket, error) {
	service := azureblob.NewDefaultServiceURLOptions()
	if service.SASToken != "" {
		for name := range u.Query() {
			return nil, errors.New("parameter " + name + " must not lead a token elsewhere: where AZURE_STORAGE_SAS_TOKEN is set, set AZURE_STORAGE_ACCOUNT, _DOMAIN, _PROTOCOL beside it")
		}
	}
	if service.AccountName == "" && !u.Query().Has("storage_account") {
		return nil, errors.New("the storage account is not known: set AZURE_STORAGE_ACCOUNT")
	}
	// gocloud's opener reads the parameters; its bucket is not used.
	var client *container.Client
	opener := azureblob.URLOpener{ServiceURLOptions: *service, MakeClient: func(where azureblob.ServiceURL, name azureblob.ContainerName) (*container.Client, error) {
		c, err := azureClient(where, name)
		client = c
		return c, err
	}}
	if _, err := opener.OpenBucketURL(ctx, u); err != nil {
		return nil, err
	}
	return blob.NewBucket(&azureDriver{client}), nil
}

func azureClient(service azureblob.ServiceURL, name azureblob.ContainerName) (*container.Client, error) {
	options := &container.ClientOptions{ClientOptions: policy.ClientOptions{
		Retry:     policy.RetryOptions{MaxRetries: -1},
		Transport: &http.Client{Transport: transport},
	}}
	where, err := url.JoinPath(string(service), string(name))
	if err != nil {
		return nil, errors.New("the service's URL is none: check AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_DOMAIN")
	}
	account, key := os.Getenv("AZURE_STORAGE_ACCOUNT"), os.Getenv("AZURE_STORAGE_KEY")
	switch connection := connectionString(); {
	case account != "" && key != "":
		shared, err := container.NewSharedKeyCredential(account, key)
		if err != nil {
			return nil, errors.New("AZURE_STORAGE_KEY is not in base64")
		}
		return container.NewClientWithSharedKeyCredential(where, shared, options)
	case os.Getenv("AZURE_STORAGE_SAS_TOKEN") != "":
		return container.NewClientWithNoCredential(where, options)
	case connection != "":
		return container.NewClientFromConnectionString(connection, string(name), options)
	}
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, err
	}
	return container.NewClient(where, credential, options)
}

func connectionString() string {
	if s := os.Getenv("AZURE_STORAGE_CONNECTION_STRING"); s != "" {
		return s
	}
	return os.Getenv("AZURE_STORAGEBLOB_CONNECTIONSTRING")
}

func azureETag(as func(any) bool) string {
	var listed container.BlobItem
	var read azblob.DownloadStreamResponse
	var head azblob.GetPropertiesResponse
	var tag *azcore.ETag
	switch {
	case as(&listed):
		if listed.Properties != nil {
			tag = listed.Properties.ETag
		}
	case as(&read):
		tag = read.ETag
	case as(&head):
		tag = head.ETag
	}
	if tag == nil {
		return ""
	}
	return strings.Trim(string(*tag), `"`) // listings have no quotes
}

func azureAnswer(err error) (status int, code string) {
	var answer *azcore.ResponseError
	var useless interface{ NonRetriable() } // no credential, or one that must not be sent
	switch {
	case errors.As(err, &answer):
		code = answer.ErrorCode
		// A signature whose time is over has the code of one that is wrong.
		if code == "AuthenticationFailed" && strings.Contains(err.Error(), "not valid in the specified time frame") {
			code = "ExpiredToken"
		}
		return answer.StatusCode, code
	case errors.As(err, &useless):
		return http.StatusUnauthorized, "NoCredentials"
	}
	return 0, ""
}
