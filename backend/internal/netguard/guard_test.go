package netguard

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func newGuard(t *testing.T, cfg Config) *Guard {
	t.Helper()
	guard, err := New(cfg)
	require.NoError(t, err)
	return guard
}

func check(guard *Guard, raw string) error {
	_, err := guard.CheckURL(raw)
	return err
}

func TestCheckURL_RejectsInvalidURLs(t *testing.T) {
	t.Parallel()
	guard := newGuard(t, Config{})
	for raw, says := range map[string]string{
		"":                                             "is empty",
		"idp.example.com/token":                        "must begin with https://",
		"/token":                                       "must begin with https://",
		"//idp.example.com/token":                      "must begin with https://",
		"https:idp.example.com":                        "must begin with https://",
		"ftp://idp.example.com/":                       "must begin with https://",
		"file:///etc/passwd":                           "must begin with https://",
		"http://idp.example.com/token":                 "must use https",
		"HTTP://idp.example.com/token":                 "must use https",
		"https://":                                     "has no host",
		"https:///token":                               "has no host",
		"https:///a%20b":                               "has no host",
		"https://u@idp.example.com/":                   "user name or password",
		"https://u:secret@idp.example.com/":            "user name or password",
		"https://@idp.example.com/":                    "user name or password",
		"https://idp.example.com/?a=b":                 "has a query",
		"https://idp.example.com/?":                    "has a query",
		"https://idp.example.com/#a":                   "has a fragment",
		"https://idp.example.com/#":                    "has a fragment",
		"https://idp.example.com/a b":                  "white space",
		"https://idp.example.com/\n":                   "white space or a control character",
		"https://idp.example.com:/":                    "colon but no port",
		"https://idp.example.com:0/":                   "between 1 and 65535",
		"https://idp.example.com:65536/":               "between 1 and 65535",
		"https://idp.example.com:https/":               "not a URL",
		"https://idp%2eexample.com/":                   "percent sign",
		"https://%31%32%37.0.0.1/":                     "percent sign",
		"https://[fe80::1%25eth0]/":                    "percent sign",
		"https://idp..example.com/":                    "invalid host name",
		"https://.example.com/":                        "invalid host name",
		"https://idp.exam!ple.com/":                    "invalid host name",
		"https://" + strings.Repeat("a", 64):           "invalid host name",
		"https://" + strings.Repeat("a.", 126) + "aa/": "more than 253",
		"https://idp.example.com/" + strings.Repeat("a", 2049-len("https://idp.example.com/")): "longer than 2048",
		"https://ídp.example.com/":       "non-ASCII",
		"https://１２７.0.0.1/":             "non-ASCII",
		"https://\u212aube.example.com/": "non-ASCII",
		"https://127。0。0。1/":             "non-ASCII",
		"https://[idp.example.com]/":     "not a URL",
		"https://[127.0.0.1]/":           "not a URL",
		"https://[::1/":                  "not a URL",
	} {
		_, err := guard.CheckURL(raw)
		require.ErrorContains(t, err, says, "%q", raw)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestCheckURL_AcceptsPublicHosts(t *testing.T) {
	t.Parallel()
	guard := newGuard(t, Config{})
	for _, raw := range []string{
		"https://idp.example.com",
		"https://idp.example.com/",
		"https://IDP.Example.COM/auth/realms/apigw",
		"https://idp.example.com./auth/realms/apigw",
		"https://idp.example.com:8443/auth/realms/a%20b",
		"https://xn--dp-kia.example.com/",
		"https://my_idp.example.com/",
		"https://8.8.8.8/token",
		"https://[2606:4700::1111]/token",
		"https://[2606:4700::1111]:8443/token",
		"HTTPS://idp.example.com/",
		"https://0xidp.example.com/",
		"https://" + strings.Repeat("a", 63) + ".example.com/",
		"https://" + strings.Repeat("a.", 126) + "a/",
		"https://idp.example.com/" + strings.Repeat("a", 2048-len("https://idp.example.com/")),
	} {
		require.NoError(t, check(guard, raw), raw)
	}
}

// Without a list these are rejected in every spelling; nothing is resolved.
func TestCheckURL_RejectsAddressesInEverySpelling(t *testing.T) {
	t.Parallel()
	guard := newGuard(t, Config{})
	for host, says := range map[string]string{
		"127.0.0.1":                              "loopback",
		"127.255.255.254":                        "loopback",
		"127.0.0.1.":                             "plain IPv4 address",
		"127.1":                                  "plain IPv4 address",
		"127.0.1":                                "plain IPv4 address",
		"2130706433":                             "plain IPv4 address",
		"0x7f000001":                             "plain IPv4 address",
		"0X7F.0.0.1":                             "plain IPv4 address",
		"0x7f.0x1":                               "plain IPv4 address",
		"0177.0.0.1":                             "plain IPv4 address",
		"017700000001":                           "plain IPv4 address",
		"127.000.000.001":                        "plain IPv4 address",
		"1.2.3.4.5":                              "plain IPv4 address",
		"256.0.0.1":                              "plain IPv4 address",
		"idp.example.123":                        "plain IPv4 address",
		"idp.example.0x":                         "plain IPv4 address",
		"0":                                      "plain IPv4 address",
		"0.0.0.0":                                "unspecified",
		"10.1.2.3":                               "private",
		"172.31.0.1":                             "private",
		"192.168.0.1":                            "private",
		"100.64.0.1":                             "private",
		"169.254.0.1":                            "link-local",
		"169.254.169.254":                        "cloud metadata",
		"100.100.100.200":                        "cloud metadata",
		"192.0.0.192":                            "cloud metadata",
		"100.96.0.96":                            "cloud metadata",
		"100.80.80.80":                           "cloud metadata",
		"168.63.129.16":                          "cloud metadata",
		"2852039166":                             "plain IPv4 address",
		"0xa9fea9fe":                             "plain IPv4 address",
		"192.0.2.1":                              "reserved",
		"198.18.0.1":                             "reserved",
		"224.0.0.1":                              "multicast",
		"240.0.0.1":                              "reserved",
		"255.255.255.255":                        "reserved",
		"[::]":                                   "unspecified",
		"[::1]":                                  "loopback",
		"[0:0:0:0:0:0:0:1]":                      "canonical form; use [::1]",
		"[::ffff:127.0.0.1]":                     "loopback",
		"[::FFFF:127.0.0.1]":                     "loopback",
		"[::ffff:7f00:1]":                        "canonical form",
		"[::ffff:169.254.169.254]":               "cloud metadata",
		"[::7f00:1]":                             "reserved",
		"[64:ff9b::a9fe:a9fe]":                   "cloud metadata",
		"[64:ff9b::7f00:1]":                      "loopback",
		"[64:ff9b::a00:1]":                       "private",
		"[64:ff9b:1::808:808]":                   "reserved",
		"[2002:7f00:1::]":                        "reserved",
		"[2002:a9fe:a9fe::1]":                    "reserved",
		"[2001::1]":                              "reserved",
		"[2001:0:4136:e378:8000:63bf:3fff:fdd2]": "reserved",
		"[2001:0:4136:e378::1]":                  "reserved",
		"[2001:db8::1]":                          "reserved",
		"[fc00::1]":                              "private",
		"[fd00:ec2::254]":                        "cloud metadata",
		"[fd20:ce::254]":                         "cloud metadata",
		"[fd00:42::42]":                          "cloud metadata",
		"[fd00:a9fe:a9fe::1]":                    "cloud metadata",
		"[fd00:c1::a9fe:a9fe]":                   "cloud metadata",
		"[fd00:100::100:200]":                    "cloud metadata",
		"[fe80::a9fe:a9fe]":                      "link-local",
		"169.254.42.42":                          "link-local",
		"[fe80::1]":                              "link-local",
		"[fec0::1]":                              "reserved",
		"[ff02::1]":                              "multicast",
		"[100::1]":                               "reserved",
		"[5f00::1]":                              "reserved",
		"localhost":                              "a loopback name",
		"LOCALHOST.":                             "a loopback name",
		"idp.localhost":                          "a loopback name",
		"metadata.google.internal":               "cloud metadata",
		"Metadata.Google.Internal.":              "cloud metadata",
		"instance-data":                          "cloud metadata",
		"instance-data.ec2.internal":             "cloud metadata",
		"metadata":                               "cloud metadata",
		"metadata.goog":                          "cloud metadata",
		"metadata.tencentyun.com":                "cloud metadata",
		"api.metadata.cloud.ibm.com":             "cloud metadata",
		"metadata.exoscale.com":                  "cloud metadata",
		"metadata.platformequinix.com":           "cloud metadata",
	} {
		require.ErrorContains(t, check(guard, "https://"+host+"/"), says, host)
		require.ErrorContains(t, check(guard, "https://"+host+":8443/"), says, host)
	}
}

func TestClassify_CoversEveryRange(t *testing.T) {
	t.Parallel()
	guard := newGuard(t, Config{})
	for text, want := range map[string]reach{
		"8.8.8.8": reachPublic, "9.255.255.255": reachPublic, "11.0.0.0": reachPublic, "1.0.0.0": reachPublic,
		"0.255.255.255": reachNever,
		"10.0.0.0":      reachPrivate, "10.255.255.255": reachPrivate,
		"100.63.255.255": reachPublic, "100.64.0.0": reachPrivate, "100.127.255.255": reachPrivate, "100.128.0.0": reachPublic,
		"126.255.255.255": reachPublic, "127.0.0.0": reachLoopback, "127.255.255.255": reachLoopback, "128.0.0.0": reachPublic,
		"169.253.255.255": reachPublic, "169.254.0.0": reachNever, "169.254.255.255": reachNever, "169.255.0.0": reachPublic,
		"172.15.255.255": reachPublic, "172.16.0.0": reachPrivate, "172.31.255.255": reachPrivate, "172.32.0.0": reachPublic,
		"168.63.129.15": reachPublic, "168.63.129.16": reachNever, "168.63.129.17": reachPublic,
		"100.100.100.199": reachPrivate, "100.100.100.200": reachNever,
		"100.96.0.95": reachPrivate, "100.96.0.96": reachNever, "100.80.80.80": reachNever, "100.80.80.81": reachPrivate,
		"192.0.0.0": reachNever, "192.0.1.0": reachPublic, "192.0.2.255": reachNever, "192.88.99.1": reachNever,
		"192.167.255.255": reachPublic, "192.168.0.0": reachPrivate, "192.169.0.0": reachPublic,
		"198.17.255.255": reachPublic, "198.18.0.0": reachNever, "198.19.255.255": reachNever, "198.20.0.0": reachPublic,
		"198.51.100.7": reachNever, "203.0.113.7": reachNever,
		"223.255.255.255": reachPublic, "224.0.0.0": reachNever, "239.255.255.255": reachNever, "255.255.255.255": reachNever,

		"::": reachNever, "::1": reachLoopback, "::2": reachNever, "::8.8.8.8": reachNever,
		"::ffff:8.8.8.8": reachPublic, "::ffff:10.0.0.1": reachPrivate, "::ffff:127.0.0.1": reachLoopback, "::ffff:169.254.169.254": reachNever,
		"64:ff9b::8.8.8.8": reachPublic, "64:ff9b::10.0.0.1": reachPrivate, "64:ff9b::169.254.169.254": reachNever,
		"64:ff9b:0:0:0:1:808:808": reachNever, "64:ff9b:1::808:808": reachNever, "64:ff9b:1:a9fe:a9:fe00::": reachNever,
		"100::1": reachNever, "1fff::1": reachNever,
		"2001::1": reachNever, "2001:1ff::1": reachNever, "2001:200::1": reachPublic, "2001:db8::1": reachNever, "2001:4860:4860::8888": reachPublic,
		"2002:808:808::1": reachNever, "2003::1": reachPublic, "3fff::1": reachNever, "3fff:1000::1": reachPublic,
		"4000::1": reachNever, "5f00::1": reachNever,
		"fbff::1": reachNever, "fc00::1": reachPrivate, "fd00::1": reachPrivate, "fdff:ffff::1": reachPrivate,
		"fd00:ec2::254": reachNever, "fd00:ec2::23": reachNever, "fd20:ce::254": reachNever, "fd20:ce::253": reachPrivate,
		"fd00:42::42": reachNever, "fd00:42::43": reachPrivate, "fd00:a9fe:a9fe::1": reachNever, "fd00:a9fe:a9fe::2": reachPrivate,
		"fd00:c1::a9fe:a9fe": reachNever, "fd00:c1::a9fe:a9ff": reachPrivate, "fd00:100::100:200": reachNever, "fd00:100::100:201": reachPrivate,
		"fe00::1": reachNever, "fe80::1": reachNever, "fe80::1%eth0": reachNever, "fec0::1": reachNever, "ff02::1": reachNever,
	} {
		got, name := guard.classify(netip.MustParseAddr(text))
		require.Equal(t, want, got, "%s is %s", text, name)
	}
}

func TestAllowedHosts_MatchHostAndPort(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		listed   string
		allowed  []string
		rejected []string
	}{
		{
			"idp.example.com",
			[]string{"https://idp.example.com", "https://IDP.example.com.:443/x"},
			[]string{"https://idp.example.com:8443", "https://a.idp.example.com", "https://example.com", "https://8.8.8.8", "https://localhost"},
		},
		{
			"IDP.Example.com.:8443",
			[]string{"https://idp.example.com:8443"},
			[]string{"https://idp.example.com"},
		},
		{
			"*.example.com",
			[]string{"https://idp.example.com", "https://a.b.example.com"},
			[]string{"https://example.com", "https://badexample.com", "https://idp.example.com:8443", "https://idp.example.com.evil.org"},
		},
		{
			"*.example.com:8443",
			[]string{"https://idp.example.com:8443"},
			[]string{"https://idp.example.com"},
		},
		{
			"10.1.2.3",
			[]string{"https://10.1.2.3/token"},
			[]string{"https://10.1.2.4/token", "https://[::ffff:10.1.2.3]/"},
		},
		{
			"[fd00::1]:8443",
			[]string{"https://[fd00::1]:8443", "https://[FD00::1]:8443"},
			[]string{"https://[fd00::1]", "https://[fd00::2]:8443"},
		},
		{"[::1]", []string{"https://[::1]"}, []string{"https://127.0.0.1"}},
		{"localhost:8443", []string{"https://localhost:8443", "https://LOCALHOST.:8443"}, []string{"https://localhost", "https://a.localhost:8443"}},
	} {
		guard := newGuard(t, Config{AllowedHosts: []string{"other.example.org", c.listed}})
		for _, raw := range c.allowed {
			require.NoError(t, check(guard, raw), "%s lists %s", c.listed, raw)
		}
		for _, raw := range c.rejected {
			require.ErrorContains(t, check(guard, raw), "not listed in allowed_hosts", "%s does not list %s", c.listed, raw)
		}
	}
}

func TestAllowedHosts_AreValidated(t *testing.T) {
	t.Parallel()
	for item, says := range map[string]string{
		"":                         "is empty",
		"  ":                       "is empty",
		"*":                        "* alone",
		"*.":                       "",
		"*.com":                    "at least two labels",
		"*.localhost":              "at least two labels",
		"*.0.0.1":                  "",
		"a.*.com":                  "whole first label",
		"*a.example.com":           "whole first label",
		"*.*.example.com":          "whole first label",
		"https://idp.example.com":  "is a URL",
		"idp.example.com/path":     "is more than a host",
		"10.0.0.0/8":               "is more than a host",
		"u@idp.example.com":        "is more than a host",
		"idp.example.com:":         "between 1 and 65535",
		"idp.example.com:0":        "between 1 and 65535",
		"idp.example.com:65536":    "between 1 and 65535",
		"idp.example.com:http":     "between 1 and 65535",
		"idp example.com":          "invalid host name",
		"::1":                      "without brackets",
		"fd00::1":                  "without brackets",
		"[fd00::1":                 "without an IPv6 address",
		"[fd00::1:443":             "without an IPv6 address",
		"[10.0.0.1]":               "without an IPv6 address",
		"a\x7f.example.com":        "invalid host name",
		"[fe80::1%eth0]":           "without an IPv6 address",
		"127.1":                    "plain IPv4 address",
		"ídp.example.com":          "non-ASCII",
		"169.254.169.254":          "never allowed",
		"[fd00:ec2::254]:80":       "never allowed",
		"224.0.0.1":                "never allowed",
		"0.0.0.0":                  "never allowed",
		"metadata.google.internal": "never allowed",
	} {
		_, err := New(Config{AllowedHosts: []string{"idp.example.com", item}})
		require.ErrorAs(t, err, new(*Error), "%q", item)
		require.ErrorContains(t, err, "item 2 ", "%q", item)
		require.ErrorContains(t, err, says, "%q", item)
	}
}

func TestAllowInsecure_AllowsHTTPAndLoopbackOnly(t *testing.T) {
	t.Parallel()
	insecure := newGuard(t, Config{AllowInsecure: true})
	for _, raw := range []string{"http://localhost:8080/realms/x", "https://127.0.0.1:8443", "http://[::1]", "http://idp.example.com"} {
		require.NoError(t, check(insecure, raw), raw)
	}
	for _, raw := range []string{"http://10.0.0.1", "http://169.254.169.254", "http://metadata.google.internal", "http://[fe80::1]"} {
		require.Error(t, check(insecure, raw), raw)
	}
	listing := newGuard(t, Config{AllowInsecure: true, AllowedHosts: []string{"idp.example.com:80"}})
	require.NoError(t, check(listing, "http://idp.example.com"))
	require.ErrorContains(t, check(listing, "http://localhost"), "not listed", "only listed hosts are allowed")
}

// dialing returns the check that a dialer makes of each address, as of one answer of the resolver.
func dialing(t *testing.T, guard *Guard, hostPort string) func(address string) error {
	t.Helper()
	control, err := guard.Control(hostPort)
	require.NoError(t, err)
	return func(address string) error { return control("tcp", address, nil) }
}

// A key's errors must not tell its writer what an internal name resolves to.
func TestControl_NamesAddressOfListedHostsOnly(t *testing.T) {
	t.Parallel()
	unlisted := dialing(t, newGuard(t, Config{}), "idp.example.com:443")
	listed := dialing(t, newGuard(t, Config{AllowedHosts: []string{"idp.example.com"}}), "idp.example.com:443")
	for address, kind := range map[string]string{
		"10.1.2.3:443":               "a private address",
		"100.64.1.2:443":             "a private (carrier-grade NAT) address",
		"[fd12:3456::789a]:443":      "a private (unique local) address",
		"127.8.8.8:443":              "a loopback address",
		"169.254.7.7:443":            "a link-local address",
		"[fe80::1234%eth0]:443":      "a link-local address",
		"169.254.169.254:443":        "a cloud metadata address",
		"[::ffff:10.1.2.3]:443":      "a private address",
		"[64:ff9b::169.254.7.7]:443": "a link-local address",
		"[2002:a01:203::1]:443":      "a reserved address",
		"[fd00:42::42]:443":          "a cloud metadata address",
		"224.1.2.3:443":              "a multicast address",
		"0.1.2.3:443":                "an unspecified address",
		"198.51.100.77:443":          "a reserved address",
		"not an address at all":      "something that is not an address",
		"idp.example.com:443":        "something that is not an address",
		"10.1.2.3":                   "something that is not an address",
	} {
		err := unlisted(address)
		require.ErrorAs(t, err, new(*Error), address)
		require.ErrorContains(t, err, "idp.example.com ", address)
		require.ErrorContains(t, err, kind, address)
		require.NotRegexp(t, "[0-9]", err.Error(), "no part of the address")
	}
	var blocked *Error
	require.ErrorAs(t, unlisted("10.1.2.3:443"), &blocked)
	require.True(t, blocked.Unlisted)
	require.ErrorAs(t, unlisted("169.254.169.254:443"), &blocked)
	require.False(t, blocked.Unlisted)

	require.NoError(t, listed("10.1.2.3:443"))
	require.EqualError(t, listed("169.254.169.254:443"),
		"idp.example.com is not allowed: 169.254.169.254 is a cloud metadata address, which is never allowed")
	require.EqualError(t, check(newGuard(t, Config{}), "https://10.1.2.3/"),
		"is not allowed: 10.1.2.3 is a private address, which is allowed only for a host listed in allowed_hosts",
		"the URL names it itself")
}

// DNS rebinding: a name that was at a public address when it was checked is not so forever.
func TestControl_ChecksEachAnswer(t *testing.T) {
	t.Parallel()
	dial := dialing(t, newGuard(t, Config{}), "idp.example.com:443")
	require.NoError(t, dial("8.8.8.8:443"))
	require.NoError(t, dial("[2606:4700::1111]:443"))
	require.ErrorContains(t, dial("10.1.2.3:443"), "a private address")
	require.NoError(t, dial("8.8.8.8:443"))
}

func TestControl_ChecksHostBeforeItIsResolved(t *testing.T) {
	t.Parallel()
	guard := newGuard(t, Config{AllowedHosts: []string{"idp.example.com:8443", "[fd00::1]"}})
	for hostPort, says := range map[string]string{
		"idp.example.com:8443":  "",
		"[fd00::1]:443":         "",
		"idp.example.com:443":   "idp.example.com, which is not listed",
		"[fd00::2]:443":         "[fd00::2], which is not listed",
		"metadata.goog:443":     "cloud metadata",
		"idp.example.com":       "no host and port",
		"idp.example.com:https": "between 1 and 65535",
		"[fe80::1%eth0]:443":    "without an IPv6 address",
		"169.254.169.254:443":   "not listed",
	} {
		_, err := guard.Control(hostPort)
		if says == "" {
			require.NoError(t, err, hostPort)
			continue
		}
		require.ErrorAs(t, err, new(*Error), hostPort)
		require.ErrorContains(t, err, says, hostPort)
	}
}
