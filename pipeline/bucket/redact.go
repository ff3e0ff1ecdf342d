package bucket

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

const redacted = "REDACTED"

var (
	storedSecret = regexp.MustCompile(`(?i)access_?key|secret|token|^sig$|signature|sas|password|credential`)
	secretName   = regexp.MustCompile(`(?i)key|secret|token|sig|sas|password|credential`)
)

// HoldsSecret tells whether a bucket URL has a user name, a password or a
// parameter that no driver needs but as a secret: such a URL must not be
// stored. (What errors hide is wider: kmskeyid is a name.)
func HoldsSecret(rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil {
		return false
	}
	for name := range u.Query() {
		if storedSecret.MatchString(name) {
			return true
		}
	}
	return u.User != nil
}

// secretsOf returns the parts of u that no message may show, in every form in
// which they may turn up.
func secretsOf(u *url.URL) []string {
	var secrets []string
	if u.User != nil {
		password, _ := u.User.Password()
		secrets = append(secrets, u.User.String(), password, u.User.Username())
	}
	for name, values := range u.Query() {
		if secretName.MatchString(name) {
			secrets = append(secrets, values...)
		}
		for _, v := range values { // an endpoint may hold some, too
			if inner, err := url.Parse(v); err == nil && inner.User != nil {
				secrets = append(secrets, inner.User.String())
			}
		}
	}
	return longestFirst(everyForm(secrets))
}

func everyForm(secrets []string) []string {
	var forms []string
	for _, s := range secrets {
		if s != "" {
			forms = append(forms, s, url.QueryEscape(s), url.PathEscape(s))
		}
	}
	return forms
}

// longestFirst sorts secrets so that none is cut by another that it holds.
func longestFirst(secrets []string) []string {
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	return slices.Compact(secrets)
}

// leaks are the forms in which drivers' errors quote what grants access: the
// parameters of signed URLs, headers, connection strings, users of URLs. Each
// pattern's first group stays.
var leaks = []*regexp.Regexp{
	regexp.MustCompile(`(?i)([?&;](?:sig|signature|se|skoid|sktid|[a-z0-9_-]*(?:token|credential|signature|secret|password|accesskeyid|googleaccessid|api_?key))=)[^&\s"'<>;]+`),
	regexp.MustCompile(`(?i)(\b(?:accountkey|sharedaccesssignature|client_secret|refresh_token|access_token|private_key|aws_secret_access_key)["']?\s*[=:]\s*["']?)[^;\s"',<>]+`),
	regexp.MustCompile(`(?i)(\bbearer\s+)[a-z0-9._~+/=-]+`),
	regexp.MustCompile(`(?i)(\bsharedkey(?:lite)?\s+[^:\s]+:)[a-z0-9+/=]+`),
	regexp.MustCompile(`(?i)(\b(?:credential|signature)=)[^,&\s"'<>]+`),
	regexp.MustCompile(`(?i)(<(?:stringtosign|stringtosignbytes|canonicalrequest|canonicalrequestbytes|signatureprovided|awsaccesskeyid|authenticationerrordetail)>)[^<]*`),
	regexp.MustCompile(`(\b[a-z][a-z0-9+.-]*://)[^/?#\s"'@]*@`),
}

// redact frees text of the given secrets, the longest first, and of whatever
// looks like one.
func redact(text string, secrets []string) string {
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, redacted)
	}
	for _, leak := range leaks {
		text = leak.ReplaceAllString(text, "${1}"+redacted)
	}
	return text
}

// maxDetail bounds what an error quotes of a driver's, in bytes.
const maxDetail = 700

// oneLine folds a driver's error, which may be a page with rulers, into a line.
func oneLine(text string) string {
	var words []string
	for _, w := range strings.Fields(text) {
		if strings.Trim(w, "-") != "" {
			words = append(words, w)
		}
	}
	line := strings.Join(words, " ")
	if len(line) > maxDetail {
		line = strings.ToValidUTF8(line[:maxDetail], "") + "…"
	}
	return line
}
