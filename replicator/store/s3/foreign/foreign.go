// Package foreign reads answers that are not S3's XML: a proxy's web page, a gateway's JSON, a
// line of text. It also reads the canonical request that a store quotes when it refuses a
// signature.
package foreign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// ErrNotS3 reports that something other than an object store answered: a captive portal, a
// proxy's error page with status 200, a web console's port.
var ErrNotS3 = errors.New("the answer does not come from an S3 store")

// OneLine returns text without line breaks, cut to a sensible length.
func OneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 400 {
		text = text[:400] + "…"
	}
	return text
}

// maxRefusal is how many bytes of a refusal are read.
const maxRefusal = 64 << 10

// foreignAnswer is a refusal that is not S3's XML: a proxy's page, a gateway's JSON, a line of
// text. It is a smithy.APIError, so that it is judged like any other.
type foreignAnswer struct {
	code, text string
}

// Error implements error.
func (f *foreignAnswer) Error() string { return f.text }

// ErrorCode implements smithy.APIError.
func (f *foreignAnswer) ErrorCode() string { return f.code }

// ErrorMessage implements smithy.APIError.
func (f *foreignAnswer) ErrorMessage() string { return f.text }

// ErrorFault implements smithy.APIError.
func (f *foreignAnswer) ErrorFault() smithy.ErrorFault { return smithy.FaultUnknown }

// keptBody is a refusal's body that can still be read after the SDK has read it.
type keptBody struct {
	*bytes.Reader
	data []byte
}

// Close implements io.Closer.
func (keptBody) Close() error { return nil }

// Refuse stands next to the wire. A web page with status 200 becomes an error; a refusal is
// kept, and if it is not S3's XML, its text becomes the message.
func Refuse(ctx context.Context, in middleware.DeserializeInput,
	next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
	out, metadata, err := next.HandleDeserialize(ctx, in)
	response, ok := out.RawResponse.(*smithyhttp.Response)
	if err != nil || !ok {
		return out, metadata, err
	}
	page := strings.HasPrefix(response.Header.Get("Content-Type"), "text/html")
	if response.StatusCode < 300 {
		if page {
			err = ErrNotS3
		}
		return out, metadata, err
	}
	data, readErr := io.ReadAll(io.LimitReader(response.Body, maxRefusal))
	response.Body.Close() //nolint:errcheck // a refusal has nothing to lose
	response.Body = keptBody{bytes.NewReader(data), data}
	if readErr == nil && !page {
		err = inOtherWords(bytes.TrimSpace(data))
	} else if page {
		err = &foreignAnswer{text: "a web page answered: " + title(data, response.StatusCode)}
	}
	return out, metadata, err
}

// inOtherWords returns the error that a refusal in JSON or plain text describes, nil if the
// body is empty or XML.
func inOtherWords(data []byte) error {
	if len(data) == 0 || data[0] == '<' {
		return nil
	}
	if data[0] != '{' {
		return &foreignAnswer{text: OneLine(string(data))}
	}
	var fields map[string]any
	if json.Unmarshal(data, &fields) != nil {
		return &foreignAnswer{text: OneLine(string(data))}
	}
	if inner, nested := fields["error"].(map[string]any); nested {
		fields = inner
	}
	f := &foreignAnswer{code: word(fields, "Code", "code", "errorCode"), text: word(fields, "Message", "message",
		"error_description", "error", "detail")}
	if f.text == "" {
		f.text = OneLine(string(data))
	}
	return f
}

// word returns the first of these fields that holds text.
func word(fields map[string]any, names ...string) string {
	for _, name := range names {
		if text, ok := fields[name].(string); ok && text != "" {
			return text
		}
	}
	return ""
}

var (
	titled = regexp.MustCompile(`(?is)<title>(.*?)</title>`)
	tags   = regexp.MustCompile(`(?s)<[^>]*>`)
)

// title returns the title of a web page.
func title(page []byte, status int) string {
	text := http.StatusText(status)
	if match := titled.FindSubmatch(page); match != nil {
		text = string(match[1])
	} else if plain := strings.TrimSpace(tags.ReplaceAllString(string(page), " ")); plain != "" {
		text = plain
	}
	return fmt.Sprintf("%.100q", OneLine(text))
}

// Rewritten returns the signed header that was different when it reached the store. A store
// shows this if its refusal quotes the request that it checked; "" if it does not, or if all
// headers are the same.
func Rewritten(err error) (header, sent, got string) {
	var response *awshttp.ResponseError
	if !errors.As(err, &response) || response.Response == nil || response.Response.Request == nil {
		return "", "", ""
	}
	body, kept := response.Response.Body.(keptBody)
	if !kept {
		return "", "", ""
	}
	match := canonical.FindSubmatch(body.data)
	if match == nil {
		return "", "", ""
	}
	request := response.Response.Request
	for line := range strings.Lines(unescaped.Replace(string(match[1]))) {
		name, value, found := strings.Cut(strings.TrimSpace(line), ":")
		was := request.Header.Values(name)
		if !found || len(was) == 0 {
			continue
		}
		if joined := strings.Join(strings.Fields(strings.Join(was, ",")), " "); joined != strings.Join(strings.Fields(value),
			" ") {
			return name, joined, value
		}
	}
	return "", "", ""
}

var (
	canonical = regexp.MustCompile(`(?s)<CanonicalRequest>(.*?)</CanonicalRequest>`)
	unescaped = strings.NewReplacer("&#13;", "", "&#10;", "\n", "&quot;", `"`, "&lt;", "<", "&gt;", ">", "&amp;", "&")
)
