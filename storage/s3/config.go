package s3

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"dreamcad/storage"
)

// Config says how to reach a bucket.
type Config struct {
	Bucket string
	Prefix string // keys are stored below it; without slashes at its ends
	// Endpoint is the server, "https://host:port"; default AWS in Region.
	Endpoint string
	// PublicEndpoint is the server as people reach it; links name it. Default Endpoint.
	PublicEndpoint string
	Region         string // default us-east-1

	// Without keys the usual places are asked in turn: AWS_… variables, the shared
	// credentials file, the machine's role.
	AccessKey    string
	SecretKey    string
	SessionToken string

	PathStyle   *bool  // nil: by the endpoint's name
	Create      bool   // make the bucket when it is missing
	CAFile      string // PEM file of further authorities
	InsecureTLS bool   // accept any certificate: for trials only

	PartSize    int64         // bytes of one part of a large object; default 16 MiB
	Concurrency int           // parts at once; default 3
	Retries     int           // tries of one request; default 4
	Dial        time.Duration // to connect; default 5 s
	Answer      time.Duration // to the first byte of an answer; default 30 s
}

// ParseURL reads s3://BUCKET/PREFIX?endpoint=…&public_endpoint=…&region=…&
// path_style=true|false&create=true&ca=FILE&insecure_tls=true&part_size=MIB&
// concurrency=N. Keys may be given as s3://ACCESS:SECRET@BUCKET, but belong into
// the environment.
func ParseURL(text string) (Config, error) {
	var c Config
	u, err := url.Parse(text)
	if err != nil {
		// The text may hold a secret: keep it out of the message.
		return c, errors.New("reading storage URL: not a valid URL")
	}
	if u.Scheme != "s3" || u.Host == "" {
		return c, errors.New("reading storage URL: want s3://BUCKET/PREFIX?endpoint=…&region=…")
	}
	c.Bucket, c.Prefix = u.Host, strings.Trim(u.Path, "/")
	if c.Prefix != "" {
		if err := storage.CheckKey(c.Prefix); err != nil {
			return c, fmt.Errorf("reading storage URL: prefix %q: letters, digits, %q and slashes are allowed", c.Prefix, "._-")
		}
	}
	if u.User != nil {
		c.AccessKey = u.User.Username()
		c.SecretKey, _ = u.User.Password()
	}
	for name, values := range u.Query() {
		if err := c.set(name, values[len(values)-1]); err != nil {
			return c, fmt.Errorf("reading storage URL: %w", err)
		}
	}
	return c, nil
}

func (c *Config) set(name, value string) error {
	flag := func(into *bool) error {
		b, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%s=%q: want true or false", name, value)
		}
		*into = b
		return nil
	}
	switch name {
	case "endpoint":
		c.Endpoint = value
	case "public_endpoint":
		c.PublicEndpoint = value
	case "region":
		c.Region = value
	case "path_style":
		c.PathStyle = new(bool)
		return flag(c.PathStyle)
	case "create":
		return flag(&c.Create)
	case "insecure_tls":
		return flag(&c.InsecureTLS)
	case "ca":
		c.CAFile = value
	case "part_size":
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n < 5 || n > 5120 {
			return fmt.Errorf("part_size=%q: want 5 to 5120 (MiB)", value)
		}
		c.PartSize = n << 20
	case "concurrency":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > 64 {
			return fmt.Errorf("concurrency=%q: want 1 to 64", value)
		}
		c.Concurrency = n
	default:
		return fmt.Errorf("unknown option %q", name)
	}
	return nil
}

func (c *Config) setDefaults() {
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	if c.Endpoint == "" {
		c.Endpoint = "https://s3." + c.Region + ".amazonaws.com"
	}
	if c.PublicEndpoint == "" {
		c.PublicEndpoint = c.Endpoint
	}
	if c.PartSize == 0 {
		c.PartSize = 16 << 20
	}
	if c.Concurrency == 0 {
		c.Concurrency = 3
	}
	if c.Retries == 0 {
		c.Retries = 4
	}
	if c.Dial == 0 {
		c.Dial = 5 * time.Second
	}
	if c.Answer == 0 {
		c.Answer = 30 * time.Second
	}
}

// splitEndpoint takes "https://host:port" apart; without scheme https is meant.
func splitEndpoint(text string) (host string, secure bool, err error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return "", false, fmt.Errorf("endpoint %q: want http://HOST:PORT or https://HOST:PORT", text)
	}
	return u.Host, u.Scheme == "https", nil
}
