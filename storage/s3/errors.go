package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"

	"github.com/minio/minio-go/v7"

	"dreamcad/storage"
)

// fail gives an error of the client its kind. Secrets in URLs do not get through:
// url.Error is reduced to its cause.
func (s *Store) fail(ctx context.Context, op, key string, err error) error {
	if err == nil {
		return nil
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	if cause := ctx.Err(); cause != nil {
		var kind error
		if errors.Is(cause, context.DeadlineExceeded) {
			kind = storage.ErrUnavailable
		}
		return &storage.Error{Op: op, Key: key, Kind: kind, Err: fmt.Errorf("%w (%w)", context.Cause(ctx), err)}
	}
	return &storage.Error{Op: op, Key: key, Kind: kindOf(err), Err: err}
}

func kindOf(err error) error {
	resp, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		// What did not come from the server is trouble on the way, which the client
		// words in many ways, unless a local file or a certificate is at fault.
		var local *fs.PathError
		var cert *tls.CertificateVerificationError
		if errors.As(err, &local) || errors.As(err, &cert) {
			return nil
		}
		return storage.ErrUnavailable
	}
	switch resp.Code {
	case minio.NoSuchKey, minio.NoSuchBucket, minio.NoSuchUpload, "NotFound":
		return storage.ErrNotFound
	case minio.PreconditionFailed, "ConditionalRequestConflict":
		return storage.ErrExists
	case "QuotaExceeded", "XMinioStorageFull", "EntityTooLargeForQuota", "InsufficientStorage":
		return storage.ErrFull
	case minio.AccessDenied, "InvalidAccessKeyId", "XAdminUserNotFound", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "ExpiredToken", "InvalidToken":
		return storage.ErrForbidden
	case "IncompleteBody", "RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch":
		return storage.ErrUnavailable // damaged on the way
	}
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return storage.ErrNotFound
	case resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusUnauthorized:
		return storage.ErrForbidden
	case resp.StatusCode == http.StatusPreconditionFailed:
		return storage.ErrExists
	case resp.StatusCode == http.StatusInsufficientStorage:
		return storage.ErrFull
	case resp.StatusCode >= 500, resp.StatusCode == http.StatusConflict, resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode == http.StatusOK:
		return storage.ErrUnavailable
	}
	return nil
}
