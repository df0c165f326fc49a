package tokenendpoint

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// guard decides where a Client may connect: by URL before anything is sent, and by address at dial, after resolution, so
// that a name cannot change its address in between.
type guard struct {
	allowed       []hostPattern
	addresses     []network
	allowInsecure bool
	proxied       bool
}

func newGuard(cfg Config) (*guard, error) {
	g := &guard{addresses: addressRules(), allowInsecure: cfg.AllowInsecure, proxied: cfg.ProxyURL != ""}
	var err error
	g.allowed, err = g.parseHostPatterns(cfg.AllowedHosts)
	return g, err
}

// CheckURL says whether raw may be an issuer (RFC 8414 §2) or an endpoint: https, no query, fragment or userinfo, at a host
// that the guard lets through as far as it can tell without the network. RFC 6749 §3.2 allows an endpoint a query, but none
// is known that needs it. The error says what is wrong and what is right, and leaves naming the field to the caller.
func (c *Client) CheckURL(raw string) error {
	_, err := c.guard.checkURL(raw)
	return err
}

// maxURL keeps errors and logs short, also where the URL comes from a discovery document.
const maxURL = 2048

// checkURL parses raw and refuses what no endpoint may look like or where none may be. Its errors do not quote raw, which
// may hold a password.
func (g *guard) checkURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return nil, refuse("is empty; give a URL such as https://host/path")
	case len(raw) > maxURL:
		return nil, refuse("is longer than %d characters", maxURL)
	case strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return nil, refuse("holds white space or a control character; remove it")
	case strings.Contains(authority(raw), "%"):
		return nil, refuse("has a percent sign in its host; write a plain host name, or an address without a zone")
	case err != nil:
		return nil, refuse("is not a URL; give one such as https://host/path")
	case u.Scheme == "" || u.Opaque != "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, refuse("is not an absolute https URL; give one such as https://host/path")
	case u.Scheme == "http" && !g.allowInsecure:
		return nil, refuse("uses http; use https (for development, allow_insecure_endpoints=true in config allows http)")
	case u.User != nil:
		return nil, refuse("holds a user name or password; remove everything up to the @")
	case u.RawQuery != "" || u.ForceQuery:
		return nil, refuse("has a query; remove everything from the ? on")
	case strings.Contains(raw, "#"):
		return nil, refuse("has a fragment; remove everything from the # on")
	case strings.HasSuffix(u.Host, ":"):
		return nil, refuse("has a colon but no port after its host; remove the colon or give a port")
	}
	target, err := parseTarget(u)
	if err != nil {
		return nil, err
	}
	return u, g.checkTarget(target)
}

// authority is the part of a URL between // and the path.
func authority(raw string) string {
	_, rest, _ := strings.Cut(raw, "//")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return rest
}

// target is where a request would connect to.
type target struct {
	host string     // lower case, no final dot, no brackets
	addr netip.Addr // valid if the host is an address
	port uint16
}

func parseTarget(u *url.URL) (target, error) {
	port := u.Port()
	if port == "" {
		port = defaultPort(u.Scheme)
	}
	return parseHostPort(strings.TrimSuffix(u.Host, ":"+u.Port()), port)
}

func defaultPort(scheme string) string {
	if scheme == "http" {
		return "80"
	}
	return "443"
}

// parseHostPort takes a host as in a URL (an IPv6 address in brackets) and a decimal port.
func parseHostPort(host, port string) (target, error) {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return target{}, refuse("has a port that is not between 1 and 65535")
	}
	t := target{port: uint16(number)}
	t.host, t.addr, err = parseHost(host)
	return t, err
}

// parseHost accepts a DNS name in ASCII or an address in its canonical spelling. Every other spelling of an address that
// some resolver or library takes (2130706433, 0x7f.1, 0177.0.0.1, 127.1, full-width digits) is refused.
func parseHost(raw string) (string, netip.Addr, error) {
	if strings.ContainsFunc(raw, func(r rune) bool { return r > 0x7f }) { // before lower case makes ASCII of some (U+212A)
		return "", netip.Addr{}, refuse("has a host with characters beyond ASCII; write its ASCII form (xn--…)")
	}
	host := strings.ToLower(raw)
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		switch {
		case !closed || err != nil || !addr.Is6() || addr.Zone() != "":
			return "", netip.Addr{}, refuse("has brackets, but no IPv6 address in them")
		case addr.String() != inner:
			return "", netip.Addr{}, refuse("spells its address in an unusual way; write [%s]", addr)
		}
		return inner, addr, nil
	}
	if looksLikeIPv4(host) {
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return "", netip.Addr{}, refuse("has a host that ends in a number but is not a plain IPv4 address such as 192.0.2.1")
		}
		return host, addr, nil
	}
	host = strings.TrimSuffix(host, ".")
	return host, netip.Addr{}, checkName(host)
}

// looksLikeIPv4 is the WHATWG URL standard's "ends in a number" check: such a host is an address or invalid, never a name.
func looksLikeIPv4(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

// checkName accepts a host name of letters, digits, hyphens and underscores (RFC 1123 §2.1; underscores occur in practice).
func checkName(name string) error {
	if name == "" {
		return refuse("has no host; give a URL such as https://host/path")
	}
	if len(name) > 253 {
		return refuse("has a host of more than 253 characters")
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return refuse("has a host that is not a host name")
		}
	}
	return nil
}

// checkTarget is all that can be said of a target without resolving it.
func (g *guard) checkTarget(t target) error {
	listed := g.listed(t)
	switch {
	case len(g.allowed) > 0 && !listed:
		return refuse("is at %s, which is not listed in allowed_hosts of config", t)
	case isMetadataName(t.host):
		return refuse("is at %s, a cloud metadata service, which is never allowed", t.host)
	case t.addr.IsValid() && g.proxied:
		return refuse("is at an IP address; with proxy_url set, name a host that is listed in allowed_hosts")
	case t.addr.IsValid():
		if err := g.checkAddress(t.addr, listed); err != nil {
			return refuse("is not allowed: %s", err)
		}
	case t.host == "localhost" || strings.HasSuffix(t.host, ".localhost"): // always loopback, RFC 6761 §6.3
		if err := g.checkAddress(netip.IPv6Loopback(), listed); err != nil {
			return refuse("is at %s, this machine, which is allowed only when listed in allowed_hosts", t.host)
		}
	}
	return nil
}

// isMetadataName knows the names that clouds give their metadata services inside a virtual machine.
func isMetadataName(host string) bool {
	switch host {
	case "metadata", "metadata.google.internal", "metadata.goog", // Google Cloud
		"instance-data", "instance-data.ec2.internal", // AWS
		"metadata.tencentyun.com": // Tencent Cloud
		return true
	}
	return false
}

// checkDial returns a net.Dialer's Control: it sees the very address that is about to be connected to.
func (g *guard) checkDial(dialled string, listed bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return refuse("%s resolved to something that is no address", dialled)
		}
		if err := g.checkAddress(ap.Addr(), listed); err != nil {
			return refuse("%s is not allowed: %s", dialled, err)
		}
		return nil
	}
}

// listed says whether allowed_hosts names the target.
func (g *guard) listed(t target) bool {
	return slices.ContainsFunc(g.allowed, func(p hostPattern) bool { return p.matches(t) })
}

// String returns the target as allowed_hosts would name it.
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

// hostPattern is one item of allowed_hosts.
type hostPattern struct {
	target
	wildcard bool // the host and what is below it, but not the host itself
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

// parseHostPatterns validates allowed_hosts.
func (g *guard) parseHostPatterns(items []string) ([]hostPattern, error) {
	var patterns []hostPattern
	for i, item := range items {
		pattern, err := g.parseHostPattern(item)
		if err != nil {
			return nil, &FieldError{"allowed_hosts", "item " + strconv.Itoa(i+1) + " " + err.Error()}
		}
		patterns = append(patterns, pattern)
	}
	return patterns, nil
}

func (g *guard) parseHostPattern(item string) (hostPattern, error) {
	switch {
	case strings.TrimSpace(item) == "":
		return hostPattern{}, refuse("is empty; remove it or name a host")
	case strings.Contains(item, "://"):
		return hostPattern{}, refuse("is a URL; name the host only, such as idp.example.com")
	case strings.ContainsAny(item, "/?#@\\"):
		return hostPattern{}, refuse("holds more than a host; name a host such as idp.example.com or idp.example.com:8443 (no path, no user, no address range)")
	case item == "*":
		return hostPattern{}, refuse("is * alone; leave allowed_hosts empty to allow every public host")
	}
	host, wildcard := strings.CutPrefix(item, "*.")
	if strings.Contains(host, "*") {
		return hostPattern{}, refuse("has a * that is not its whole first label; write *.example.com")
	}
	port := "443"
	if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
		host, port = host[:colon], host[colon+1:]
	}
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		return hostPattern{}, refuse("is an IPv6 address without brackets; write it as in [2001:4860:4860::8888]:443")
	}
	t, err := parseHostPort(host, port)
	switch {
	case err != nil:
		return hostPattern{}, err
	case wildcard && (t.addr.IsValid() || !strings.Contains(t.host, ".")):
		return hostPattern{}, refuse("needs a domain of at least two labels after the *., such as *.example.com")
	case isMetadataName(t.host):
		return hostPattern{}, refuse("is a cloud metadata service, which is never allowed; remove it")
	}
	if t.addr.IsValid() {
		if reach, name := g.classify(t.addr); reach == reachNever {
			return hostPattern{}, refuse("is %s, which is never allowed; remove it", name)
		}
	}
	return hostPattern{t, wildcard}, nil
}
