package bucket

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"syscall"

	"gocloud.dev/gcerrors"
)

// What a store's refusal means. Errors wrap one of these where the store's
// answer says so.
var (
	// ErrNoBucket says that the bucket itself is missing.
	ErrNoBucket = errors.New("the bucket does not exist: create it, or correct its name, account, region or endpoint")
	// ErrDenied says that the store does not accept the credentials, or that
	// they do not allow the request.
	ErrDenied = errors.New("the store refuses the credentials: check them, and that they allow to read, write, list and delete here")
	// ErrExpired says that credentials that were good have expired.
	ErrExpired = errors.New("the credentials have expired: renew them and give the same command again, which resumes")
	// ErrClock says that the store does not accept signatures of this time.
	ErrClock = errors.New("this machine's clock is too far from the store's: set it (NTP)")
	// ErrUnavailable says that the store could not be reached, or did not serve,
	// however often it was asked.
	ErrUnavailable = errors.New("the store does not serve")
)

// fault is what an error of a driver means.
type fault int

const (
	unknown  fault = iota // only the driver's own code is known
	missing               // no such object
	noBucket              //
	denied                //
	expired               //
	skewed                // the clock
	taken                 // a condition of the request does not hold
	busy                  // worth another try
	refused               // the request is wrong
)

// sentinel is what an error with a fault wraps.
var sentinel = map[fault]error{missing: ErrNotFound, noBucket: ErrNoBucket, denied: ErrDenied, expired: ErrExpired, skewed: ErrClock, busy: ErrUnavailable}

// faultOfCode holds the stores' codes that say more than their status.
var faultOfCode = map[string]fault{
	"ExpiredToken": expired, "ExpiredTokenException": expired, "RequestExpired": expired, "TokenRefreshRequired": expired,
	"RequestTimeTooSkewed": skewed,
	"NoSuchBucket":         noBucket, "ContainerNotFound": noBucket,
	"NoSuchKey": missing, "BlobNotFound": missing,
	"PreconditionFailed": taken, "BlobAlreadyExists": taken, "ConditionNotMet": taken, "TargetConditionNotMet": taken,
	"NoSuchUpload": busy, "RequestTimeout": busy, "InternalError": busy,
	// The bytes were damaged on their way.
	"BadDigest": busy, "XAmzContentSHA256Mismatch": busy, "XAmzContentChecksumMismatch": busy, "Md5Mismatch": busy, "Crc64Mismatch": busy,
}

// authentication are the codes that a store answers to expired credentials as to
// wrong ones.
var authentication = []string{"AuthenticationFailed", "InvalidAuthenticationInfo", "InvalidAccessKeyId", "InvalidToken", "NoCredentials", "invalid_grant"}

// diagnose says what an error means, for a request that names an object or not.
func (b *Bucket) diagnose(err error, object bool) fault {
	var stalled *stalledError
	var outside *rangeError
	switch {
	case errors.As(err, &stalled):
		return busy
	case errors.Is(err, ErrChanged), errors.Is(err, errSource), errors.As(err, &outside), errors.Is(err, ErrExists), errors.Is(err, ErrOverwrites):
		return unknown
	}
	status, code := answer(err)
	if b.opts.Answer != nil {
		status, code = b.opts.Answer(err)
	}
	if status == 0 {
		if passes(err) {
			return busy
		}
		return unknown
	}
	if f, ok := faultOfCode[code]; ok {
		return f
	}
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, slices.Contains(authentication, code):
		if b.served.Load() && (status == http.StatusUnauthorized || slices.Contains(authentication, code)) {
			return expired
		}
		return denied
	case status == http.StatusNotFound && object:
		return missing
	case status == http.StatusNotFound:
		return noBucket
	case status == http.StatusPreconditionFailed, status == http.StatusNotModified:
		return taken
	case status == http.StatusNotImplemented:
		return refused
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests, status >= 500, status < 300:
		return busy
	}
	return refused
}

// answer reads errors by the methods of the AWS SDK's, whose types this package
// does not know.
func answer(err error) (status int, code string) {
	var api interface{ ErrorCode() string }
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var http interface{ HTTPStatusCode() int }
	if errors.As(err, &http) {
		status = http.HTTPStatusCode()
	}
	return status, code
}

// passes reports whether an error that is no answer of the store comes from the
// way to it.
func passes(err error) bool {
	if errors.Is(err, context.Canceled) || err == context.DeadlineExceeded {
		return false // the caller's time is over, not the store's
	}
	var network *net.OpError
	var name *net.DNSError
	if errors.As(err, &network) || errors.As(err, &name) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Temporary() || passing[errno]
	}
	var request *url.Error
	if errors.As(err, &request) && request.Op != "parse" {
		return true
	}
	var slow interface{ Timeout() bool }
	return errors.As(err, &slow) && slow.Timeout()
}

// passing are the system's errors that come from a network.
var passing = map[syscall.Errno]bool{
	syscall.ECONNABORTED: true, syscall.ECONNREFUSED: true, syscall.ECONNRESET: true, syscall.EPIPE: true,
	syscall.EHOSTUNREACH: true, syscall.ENETUNREACH: true, syscall.ENETDOWN: true, syscall.ENOTCONN: true,
	syscall.EIO: true, syscall.ESTALE: true, syscall.EBUSY: true,
}

// transient reports whether the same request may succeed later.
func (b *Bucket) transient(err error) bool {
	switch b.diagnose(err, true) {
	case busy:
		return true
	case unknown:
	case skewed:
		return true // a driver learns the store's time from its answer
	default:
		return false
	}
	var outside *rangeError
	if errors.Is(err, ErrExists) || errors.Is(err, ErrChanged) || errors.Is(err, errSource) || errors.As(err, &outside) {
		return false
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound, gcerrors.AlreadyExists, gcerrors.FailedPrecondition, gcerrors.InvalidArgument,
		gcerrors.PermissionDenied, gcerrors.Unimplemented:
		return false
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Temporary() || passing[errno]
	}
	return true
}
