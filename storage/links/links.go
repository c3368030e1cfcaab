// Package links makes and answers the links that people get in chat:
//
//	<public URL>/r/<job>/<name>?exp=<unix seconds>&sig=<key id>.<MAC>
//
// A link says which file of a result may be read until when; its signature is all
// that it needs. Answering it gives the file itself, or a redirect to a short-lived
// URL of the S3 server. So a message from last month still works while the result
// is kept, a link can be revoked, and keys can be changed without breaking old ones.
package links

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"dreamcad/storage"
)

// Keys are the secrets that sign links. The first signs new ones, all of them are
// accepted: put a new key in front to rotate, drop an old one to end its links.
type Keys []Key

// Key is one secret with its name. The name shows in links.
type Key struct {
	ID     string
	Secret []byte // at least 16 bytes
}

// ParseKeys reads "id:secret" items separated by commas or white space. A secret is
// any text of 16 bytes or more.
func ParseKeys(text string) (Keys, error) {
	var ks Keys
	for i, item := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		id, secret, ok := strings.Cut(item, ":")
		if !ok || !storage.ValidName(id) || strings.Contains(id, ".") || len(secret) < 16 {
			return nil, fmt.Errorf("link key %d: want ID:SECRET with a secret of at least 16 characters and an id of letters and digits", i+1)
		}
		ks = append(ks, Key{ID: id, Secret: []byte(secret)})
	}
	if len(ks) == 0 {
		return nil, errors.New("no link key given")
	}
	return ks, nil
}

// LoadKeys reads the keys from a file, and makes the file with one fresh key when
// there is none. Processes that start at once agree on one key.
func LoadKeys(path string) (Keys, error) {
	for range 2 {
		data, err := os.ReadFile(path)
		if err == nil {
			ks, err := ParseKeys(string(data))
			if err != nil {
				return nil, fmt.Errorf("reading link keys from %q: %w", path, err)
			}
			return ks, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading link keys: %w", err)
		}
		if err := createKeys(path); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("making link keys: %w", err)
		}
	}
	return nil, fmt.Errorf("reading link keys: %q cannot be read back", path)
}

func createKeys(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".link-keys-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintf(f, "k%s:%s\n", time.Now().UTC().Format("060102"), rand.Text()+rand.Text())
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}

// Signer makes links.
type Signer struct {
	Base string // public URL of the web listener, e.g. https://dream.example
	Keys Keys
}

// URL returns the link to a file of a job that works until the given time.
func (s Signer) URL(job, name string, until time.Time) string {
	return strings.TrimSuffix(s.Base, "/") + s.Path(job, name, until)
}

// Path returns the link without host.
func (s Signer) Path(job, name string, until time.Time) string {
	p := "/r/" + job + "/" + name
	exp := strconv.FormatInt(until.Unix(), 10)
	return p + "?" + url.Values{"exp": {exp}, "sig": {s.Keys[0].ID + "." + mac(s.Keys[0].Secret, p, exp)}}.Encode()
}

// mac covers method, path, expiry; the key id selects the secret.
func mac(secret []byte, path, exp string) string {
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "GET\n%s\n%s", path, exp)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// Errors of Verify.
var (
	ErrBadSignature = errors.New("the link is not valid")
	ErrExpired      = errors.New("the link has expired")
)

// Verify checks the query of a link to path at the given time.
func (ks Keys) Verify(path string, query url.Values, now time.Time) error {
	id, sum, _ := strings.Cut(query.Get("sig"), ".")
	exp := query.Get("exp")
	for _, k := range ks {
		if k.ID != id || !hmac.Equal([]byte(mac(k.Secret, path, exp)), []byte(sum)) {
			continue
		}
		sec, err := strconv.ParseInt(exp, 10, 64)
		if err != nil {
			return ErrBadSignature
		}
		if now.After(time.Unix(sec, 0)) {
			return ErrExpired
		}
		return nil
	}
	return ErrBadSignature
}
