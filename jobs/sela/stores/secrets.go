package stores

import (
	"net/url"
	"os"
	"strings"
)

// secretVariables hold what grants access. Key ids are no secrets, but help
// nobody in a log.
var secretVariables = []string{
	"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
	"AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGEBLOB_CONNECTIONSTRING",
	"AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_PASSWORD",
}

// secrets returns what no error may show of the environment: the values, and
// what signed tokens and connection strings hold.
func secrets() []string {
	var found []string
	add := func(s string) {
		if len(s) >= 8 { // shorter ones are words of every message
			found = append(found, s)
		}
	}
	for _, name := range secretVariables {
		value := os.Getenv(name)
		add(value)
		if strings.Contains(name, "SAS") {
			if q, err := url.ParseQuery(strings.TrimPrefix(value, "?")); err == nil {
				add(q.Get("sig"))
			}
		}
		if strings.Contains(name, "STRING") {
			for part := range strings.SplitSeq(value, ";") {
				if field, secret, ok := strings.Cut(part, "="); ok && (field == "AccountKey" || field == "SharedAccessSignature") {
					add(secret)
				}
			}
		}
	}
	return found
}
