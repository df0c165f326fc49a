package tokenendpoint

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/netguard"
)

// blockedReason returns the Reason of an error of the guard.
func blockedReason(err error) Reason {
	if rejection, ok := errors.AsType[*netguard.Error](err); ok && rejection.Unlisted {
		return HostNotListed
	}
	return URLNotAllowed
}

// blocked is a URL that the guard rejected before anything was sent.
func blocked(op Operation, endpoint string, err error) *Error {
	return &Error{
		Reason: blockedReason(err), Operation: op, URL: redactURL(endpoint), Detail: "the URL " + err.Error(),
	}
}

// blockedByAnswer is an endpoint of a discovery document that the guard rejected.
func (c *call) blockedByAnswer(r *response, err error) *Error {
	return c.answered(r, blockedReason(err), "`token_endpoint` in the discovery document "+err.Error())
}

// failed is a call without an answer.
func (c *call) failed(ctx context.Context, err error) *Error {
	return c.unfinished(ctx, c.newError(), diagnoseNetwork(err))
}

// truncated is an answer whose body did not arrive whole.
func (c *call) truncated(ctx context.Context, r *response, err error) *Error {
	failure := diagnoseNetwork(err)
	if failure.reason.Kind() == KindUnavailable {
		failure = networkFailure{reason: AnswerTruncated, detail: "the answer was cut off"}
	}
	return c.unfinished(ctx, c.answered(r, "", ""), failure)
}

// unfinished blames the context if that ended the call, and the network otherwise.
func (c *call) unfinished(ctx context.Context, e *Error, failure networkFailure) *Error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		failure, e.cause = diagnoseNetwork(context.Canceled), context.Canceled
	case ctx.Err() != nil:
		failure = networkFailure{reason: Timeout, detail: "no complete answer before the request's own deadline"}
		if own, ok := errors.AsType[*timeoutCause](context.Cause(ctx)); ok {
			failure.detail = own.Error()
		}
		e.cause = context.DeadlineExceeded
	}
	if failure.reason == Timeout && c.attempts > 0 && !c.connected.Load() {
		failure.reason = NoConnection
		failure.detail += ": no connection was made"
	}
	e.Reason, e.Detail = failure.reason, failure.detail
	return e
}

// rejected is an answer with another status than success, or with an `error` in spite of it.
func (c *call) rejected(r *response) *Error {
	switch {
	case r.status >= 300 && r.status < 400:
		return c.answered(r, Redirected, describeRedirect(r))
	case r.status < 300 && r.status != http.StatusOK:
		return c.answered(r, InvalidAnswer, "only HTTP 200 is a success here")
	}
	e := c.answered(r, "", "")
	members, err := r.object()
	if err == nil {
		e.Code = sanitizeCode(members.text("error"))
		e.Description = sanitize(members.text("error_description"))
	}
	if e.Code == "" {
		e.Detail = "the answer has no OAuth error code"
		if r.mediaType != "" && !isJSON(r.mediaType) {
			e.Detail += " (it is " + sanitizeCode(r.mediaType) + ")"
		}
	}
	if e.RetryAfter > retryAfterLimit {
		retryAfter := fmt.Sprintf("; retry after %d s", int(e.RetryAfter.Seconds()))
		e.Detail = strings.TrimPrefix(e.Detail+retryAfter, "; ")
	}
	e.Reason = reasonOf(e, members.has("error_description"))
	if c.op == OpRevocation { // the provider may repeat the access token, which can be of any form
		e.Code, e.Description = "", ""
	}
	return e
}

// describeRedirect names no more of the Location than its host: the rest may contain anything.
func describeRedirect(r *response) string {
	const detail = "redirects are not followed"
	location, err := url.Parse(r.header.Get("Location"))
	if err != nil {
		return detail
	}
	host, err := netguard.Host(location)
	if err != nil || len(host) > maxCode || sanitize(host) != host { // a relative one, or junk
		return detail
	}
	return detail + " (this one leads to " + host + ")"
}

// unusable is a 200 answer that cannot be used: err is an *answerError, or the network's.
func (c *call) unusable(ctx context.Context, r *response, err error) *Error {
	if broken, ok := errors.AsType[*answerError](err); ok {
		return c.answered(r, broken.reason, broken.detail)
	}
	return c.truncated(ctx, r, err)
}

// answered is the Error of a call that was answered.
func (c *call) answered(r *response, reason Reason, detail string) *Error {
	e := c.newError()
	e.Reason, e.Detail = reason, detail
	e.Status, e.ServerTime, e.LocalTime = r.status, r.serverTime, r.receivedAt
	e.RetryAfter = retryAfter(r.header, r.receivedAt)
	return e
}

func (c *call) newError() *Error {
	return &Error{Operation: c.op, URL: redactURL(c.endpoint.String()), Attempts: c.attempts}
}

// redactURL returns a URL without what may contain a secret.
func redactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "(no valid URL)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}
