// Package netguard decides which hosts and addresses may be reached. It checks URLs before anything
// is sent, and addresses at dial, after resolution, so that a name cannot change its address in
// between (DNS rebinding). It knows nothing of OAuth.
package netguard

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Config is what an operator allows.
type Config struct {
	// AllowedHosts are `host` or `*.suffix` (not the apex), each with an optional `:port` (default
	// 443). Empty: any host at a public address.
	AllowedHosts []string
	// AllowInsecure allows http:// and, while AllowedHosts is empty, loopback addresses.
	AllowInsecure bool
	// Proxied means that a proxy resolves names, so that addresses cannot be checked here.
	Proxied bool
}

// Guard holds the rules. It is safe for concurrent use.
type Guard struct {
	allowed       []hostPattern
	ranges        []addressRange
	allowInsecure bool
	proxied       bool
}

// Error is a rejected URL, host or address. Its text completes the sentence "<field> …" and never
// quotes a URL, which may contain a password.
type Error struct {
	text     string
	Unlisted bool // listing the host in allowed_hosts would allow it
}

func (e *Error) Error() string { return e.text }

func reject(format string, args ...any) error {
	return &Error{text: fmt.Sprintf(format, args...)}
}

func rejectUnlisted(format string, args ...any) error {
	return &Error{text: fmt.Sprintf(format, args...), Unlisted: true}
}

// New returns a Guard, or an *Error about an item of AllowedHosts.
func New(cfg Config) (*Guard, error) {
	g := &Guard{ranges: addressRanges(), allowInsecure: cfg.AllowInsecure, proxied: cfg.Proxied}
	for i, item := range cfg.AllowedHosts {
		pattern, err := g.parseHostPattern(item)
		if err != nil {
			return nil, reject("item %d %s", i+1, err)
		}
		g.allowed = append(g.allowed, pattern)
	}
	return g, nil
}

// maxURL keeps errors and logs short: a URL may come from a discovery document.
const maxURL = 2048

// CheckURL parses raw and returns an *Error unless it can be an issuer (RFC 8414 §2) or an
// endpoint: https, no query, fragment or userinfo, and a host that is allowed as far as can be told
// without the network. RFC 6749 §3.2 allows endpoints a query, but none is known to need it.
func (g *Guard) CheckURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return nil, reject("is empty; set a URL such as https://host/path")
	case len(raw) > maxURL:
		return nil, reject("is longer than %d characters", maxURL)
	case strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return nil, reject("contains white space or a control character; remove it")
	case strings.Contains(authority(raw), "%"):
		return nil, reject("has a percent sign in its host; use a plain host name, " +
			"or an address without a zone")
	case err != nil:
		return nil, reject("is not a URL; set one such as https://host/path")
	case u.Scheme == "" || u.Opaque != "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, reject("must begin with https://, such as https://host/path")
	case u.Scheme == "http" && !g.allowInsecure:
		return nil, reject("must use https; for development, set allow_insecure_endpoints=true " +
			"in config")
	case u.User != nil:
		return nil, reject("contains a user name or password; remove what is between // and @")
	case u.RawQuery != "" || u.ForceQuery:
		return nil, reject("has a query; remove everything from the ? on")
	case strings.Contains(raw, "#"):
		return nil, reject("has a fragment; remove everything from the # on")
	case strings.HasSuffix(u.Host, ":"):
		return nil, reject("has a colon but no port after its host; remove the colon or add a port")
	}
	t, err := parseTarget(u)
	if err != nil {
		return nil, err
	}
	return u, g.checkTarget(t)
}

// authority returns the part of a URL between // and the path.
func authority(raw string) string {
	_, rest, _ := strings.Cut(raw, "//")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return rest
}

// Control checks a host:port as net/http dials it, and returns a net.Dialer's Control that checks
// each address before it is connected to. The errors of both are an *Error.
func (g *Guard) Control(
	hostPort string,
) (func(network, address string, _ syscall.RawConn) error, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, reject("has no host and port")
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	t, err := parseHostPort(host, port)
	if err != nil {
		return nil, err
	}
	if err := g.checkTarget(t); err != nil {
		return nil, err
	}
	listed := g.listed(t)
	return func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return reject("%s resolved to something that is not an address", t.host)
		}
		found := t.host + " is not allowed: it resolves to"
		if listed { // otherwise errors would resolve internal names for whoever may write a key
			found = fmt.Sprintf("%s is not allowed: %s is", t.host, ap.Addr())
		}
		return g.checkAddress(ap.Addr(), listed, found)
	}, nil
}

// Host returns the host in lower case, without a final dot or brackets. Its error is an *Error.
func Host(u *url.URL) (string, error) {
	t, err := parseTarget(u)
	return t.host, err
}

// HostPort returns the host:port of an http or https URL as net/http dials it.
func HostPort(u *url.URL) string {
	return net.JoinHostPort(u.Hostname(), portOf(u))
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "http":
		return "80"
	default:
		return "443"
	}
}

// target is where a request would connect to.
type target struct {
	host string     // lower case, no final dot, no brackets
	addr netip.Addr // valid if the host is an address
	port uint16
}

func parseTarget(u *url.URL) (target, error) {
	return parseHostPort(strings.TrimSuffix(u.Host, ":"+u.Port()), portOf(u))
}

// parseHostPort parses a host as in a URL (an IPv6 address in brackets) and a decimal port.
func parseHostPort(host, port string) (target, error) {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return target{}, reject("has a port that is not between 1 and 65535")
	}
	t, err := parseHost(host)
	t.port = uint16(number)
	return t, err
}

// parseHost accepts a DNS name in ASCII or an address in its canonical form. Other forms of an
// address that some resolver or library accepts (2130706433, 0x7f.1, 0177.0.0.1, 127.1, full-width
// digits) are errors. It sets no port.
func parseHost(raw string) (t target, err error) {
	// Before ToLower, which maps some to ASCII (U+212A).
	if strings.ContainsFunc(raw, func(r rune) bool { return r > 0x7f }) {
		return t, reject("has a host with non-ASCII characters; use its ASCII form (xn--…)")
	}
	host := strings.ToLower(raw)
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		switch {
		case !closed || err != nil || !addr.Is6() || addr.Zone() != "":
			return t, reject("has brackets without an IPv6 address in them")
		case addr.String() != inner:
			return t, reject("has an IPv6 address that is not in canonical form; use [%s]", addr)
		}
		return target{host: inner, addr: addr}, nil
	}
	if looksLikeIPv4(host) {
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return t, reject("has a host that ends in a number but is not a plain IPv4 address " +
				"such as 192.0.2.1")
		}
		return target{host: host, addr: addr}, nil
	}
	host = strings.TrimSuffix(host, ".")
	return target{host: host}, checkName(host)
}

// looksLikeIPv4 is the WHATWG URL standard's "ends in a number" check: such a host is an address or
// invalid, never a name.
func looksLikeIPv4(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

// checkName accepts host names as in RFC 1123 §2.1, and underscores, which occur in practice.
func checkName(name string) error {
	if name == "" {
		return reject("has no host; set a URL such as https://host/path")
	}
	if len(name) > 253 {
		return reject("has a host of more than 253 characters")
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return reject("has an invalid host name; use letters, digits, '-', '_' and '.'")
		}
	}
	return nil
}

// checkTarget checks what can be checked without resolving the host.
func (g *Guard) checkTarget(t target) error {
	listed := g.listed(t)
	switch {
	case isMetadataName(t.host):
		return reject("is at %s, a cloud metadata service, which is never allowed", t.host)
	case len(g.allowed) > 0 && !listed:
		return rejectUnlisted("is at %s, which is not listed in allowed_hosts", t)
	case t.addr.IsValid() && g.proxied:
		return reject("is at an IP address; with proxy_url set, use a name listed in allowed_hosts")
	case t.addr.IsValid():
		return g.checkAddress(t.addr, listed, "is not allowed: "+t.host+" is")
	// Always loopback (RFC 6761 §6.3).
	case t.host == "localhost" || strings.HasSuffix(t.host, ".localhost"):
		if g.checkAddress(netip.IPv6Loopback(), listed, "") != nil {
			return rejectUnlisted("is at %s, a loopback name, "+
				"which is allowed only if listed in allowed_hosts", t)
		}
	}
	return nil
}

// isMetadataName reports whether a cloud uses the name for a metadata service.
func isMetadataName(host string) bool {
	switch host {
	case "metadata", "metadata.google.internal", "metadata.goog", // Google Cloud
		"instance-data", "instance-data.ec2.internal", // AWS
		"metadata.tencentyun.com",      // Tencent Cloud, "Viewing instance metadata"
		"api.metadata.cloud.ibm.com",   // IBM Cloud, "VPC Instance Metadata API"
		"metadata.exoscale.com",        // Exoscale, "Cloud-init user data"
		"metadata.platformequinix.com": // Equinix Metal, "Server metadata"
		return true
	}
	return false
}

func (g *Guard) listed(t target) bool {
	return slices.ContainsFunc(g.allowed, func(p hostPattern) bool { return p.matches(t) })
}

// String returns the target as allowed_hosts lists it.
func (t target) String() string {
	host := t.host
	if t.addr.Is6() {
		host = "[" + host + "]"
	}
	if t.port == 443 {
		return host
	}
	return host + ":" + strconv.Itoa(int(t.port))
}

type hostPattern struct {
	target
	wildcard bool // the subdomains of host, but not host itself
}

func (p hostPattern) matches(t target) bool {
	if p.port != t.port {
		return false
	}
	if p.wildcard {
		return !t.addr.IsValid() && strings.HasSuffix(t.host, "."+p.host)
	}
	return p.host == t.host
}

func (g *Guard) parseHostPattern(item string) (p hostPattern, err error) {
	switch {
	case strings.TrimSpace(item) == "":
		return p, reject("is empty; remove it or set a host")
	case strings.Contains(item, "://"):
		return p, reject("is a URL; set only the host, such as idp.example.com")
	case strings.ContainsAny(item, "/?#@\\"):
		return p, reject("is more than a host; set a host such as idp.example.com or " +
			"idp.example.com:8443 (no path, user or address range)")
	case strings.LastIndexByte(item, ':') == 0, item == "*.":
		return p, reject("has no host; set one such as idp.example.com or idp.example.com:8443")
	case item == "*":
		return p, reject("is * alone; leave allowed_hosts empty to allow every public host")
	}
	host, wildcard := strings.CutPrefix(item, "*.")
	if strings.Contains(host, "*") {
		return p, reject("has a * that is not its whole first label; use *.example.com")
	}
	port := "443"
	if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
		host, port = host[:colon], host[colon+1:]
	}
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		return p, reject("is an IPv6 address without brackets; use [2001:4860:4860::8888]:443")
	}
	t, err := parseHostPort(host, port)
	switch {
	case err != nil:
		return p, err
	case wildcard && (t.addr.IsValid() || !strings.Contains(t.host, ".")):
		return p, reject("needs at least two labels after the *., such as *.example.com")
	case isMetadataName(t.host):
		return p, reject("is a cloud metadata service, which is never allowed; remove it")
	}
	if t.addr.IsValid() {
		if reach, name := g.classify(t.addr); reach == reachNever {
			return p, reject("is %s, which is never allowed; remove it", name)
		}
	}
	return hostPattern{t, wildcard}, nil
}
