package storage

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Every key of the service is built in this file:
//
//	jobs/<job>/result.json          the manifest; exists once, names the attempt that counts
//	jobs/<job>/unpublished          marker: links to this job are revoked
//	jobs/<job>/ckpt/<n>             checkpoints, n grows
//	jobs/<job>/<lease>/<file>       what one attempt wrote
//	probe/<random>                  start-up checks
const (
	jobsPrefix   = "jobs/"
	resultName   = "result.json"
	revokedName  = "unpublished"
	ckptFolder   = "ckpt"
	maxKeyLength = 512
)

// CheckKey accepts keys made of segments of ASCII letters, digits, ".", "_" and
// "-", joined by "/". No segment is empty or begins with a dot, so a key can be a
// path below a directory and in a URL without escaping.
func CheckKey(key string) error {
	if key == "" || len(key) > maxKeyLength {
		return &Error{Op: "check", Key: key, Kind: ErrInvalidKey, Err: fmt.Errorf("1 to %d bytes are allowed", maxKeyLength)}
	}
	for seg := range strings.SplitSeq(key, "/") {
		if !ValidName(seg) {
			return &Error{Op: "check", Key: key, Kind: ErrInvalidKey, Err: fmt.Errorf("segment %q", seg)}
		}
	}
	return nil
}

// CheckPrefix accepts "" and valid keys followed by "/".
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if !strings.HasSuffix(prefix, "/") {
		return &Error{Op: "check", Key: prefix, Kind: ErrInvalidKey, Err: fmt.Errorf("a prefix ends in %q", "/")}
	}
	return CheckKey(strings.TrimSuffix(prefix, "/"))
}

// ValidName tells whether s can be one segment of a key.
func ValidName(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// JobPrefix is where everything of a job lives.
func JobPrefix(job string) string { return jobsPrefix + job + "/" }

// AttemptPrefix is where one attempt (a lease id) writes its files.
func AttemptPrefix(job, lease string) string { return JobPrefix(job) + lease + "/" }

// FileKey is the key of one file of an attempt.
func FileKey(job, lease, name string) string { return AttemptPrefix(job, lease) + name }

// ResultKey is the key of the manifest.
func ResultKey(job string) string { return JobPrefix(job) + resultName }

// CheckpointPrefix is where the checkpoints of a job live.
func CheckpointPrefix(job string) string { return JobPrefix(job) + ckptFolder + "/" }

// CheckpointKey is the key of the n-th checkpoint; keys sort by n.
func CheckpointKey(job string, n int) string { return fmt.Sprintf("%s%08d", CheckpointPrefix(job), n) }

// CheckpointNumber is the reverse of CheckpointKey.
func CheckpointNumber(key string) (int, bool) {
	n, err := strconv.Atoi(path.Base(key))
	return n, err == nil && n >= 0
}

func revokedKey(job string) string { return JobPrefix(job) + revokedName }

// splitJobKey takes jobs/<job>/<rest…> apart.
func splitJobKey(key string) (job, folder, name string, ok bool) {
	rest, ok := strings.CutPrefix(key, jobsPrefix)
	if !ok {
		return "", "", "", false
	}
	job, rest, ok = strings.Cut(rest, "/")
	if !ok {
		return "", "", "", false
	}
	if folder, name, ok = strings.Cut(rest, "/"); !ok {
		return job, "", rest, true
	}
	return job, folder, name, true
}

var mediaTypes = map[string]string{
	".png":  "image/png",
	".gif":  "image/gif",
	".webp": "image/webp",
	".glb":  "model/gltf-binary",
	".obj":  "model/obj",
	".mtl":  "model/mtl",
	".stl":  "model/stl",
	".json": "application/json",
	".md":   "text/markdown; charset=utf-8",
	".txt":  "text/plain; charset=utf-8",
	".csv":  "text/csv; charset=utf-8",
}

// MediaType is the content type of an object, by the ending of its key.
func MediaType(key string) string {
	if t, ok := mediaTypes[path.Ext(key)]; ok {
		return t
	}
	return "application/octet-stream"
}

// Disposition is the Content-Disposition of an object: pictures show in the
// browser, everything else is saved. Valid keys need no quoting.
func Disposition(key string) string {
	kind := "attachment"
	if strings.HasPrefix(MediaType(key), "image/") {
		kind = "inline"
	}
	return kind + `; filename="` + path.Base(key) + `"`
}
