package netguard

import "net/netip"

// reach is which hosts may be at an address.
type reach int

const (
	reachPublic   reach = iota // any host
	reachPrivate               // hosts listed in allowed_hosts
	reachLoopback              // the same, and any host with allow_insecure_endpoints
	reachNever                 // none
)

type addressRange struct {
	prefix netip.Prefix
	reach  reach
	name   string
}

// addressRanges returns all ranges. The first match decides, so single addresses come before the
// ranges that contain them. Sources: the IANA IPv4 and IPv6 Special-Purpose Address Registries
// (RFC 6890), and for metadata services what each row names.
func addressRanges() []addressRange {
	rule := func(prefix string, reach reach, name string) addressRange {
		return addressRange{netip.MustParsePrefix(prefix), reach, name}
	}
	const metadata, reserved = "a cloud metadata address", "a reserved address"
	return []addressRange{
		// Others in 169.254.0.0/16 (Tencent Cloud, Scaleway) and fe80::/10 (OpenStack, Hetzner) are
		// link-local, and need no row.
		rule("169.254.169.254/32", reachNever, metadata), // AWS, Azure, GCP, OpenStack, Oracle, …
		// AWS, EC2 user guide: ::254 metadata, ::23 EKS Pod Identity, ::253 DNS.
		rule("fd00:ec2::/32", reachNever, metadata),
		// Azure, "What is IP address 168.63.129.16?": the WireServer.
		rule("168.63.129.16/32", reachNever, metadata),
		rule("fd20:ce::254/128", reachNever, metadata), // GCP, "View and query VM metadata"
		// Oracle Cloud: oci-python-sdk, instance principals; its Classic: "Retrieve Predefined
		// Instance Metadata".
		rule("fd00:c1::a9fe:a9fe/128", reachNever, metadata),
		rule("192.0.0.192/32", reachNever, metadata),
		// Alibaba Cloud, "Overview of ECS instance metadata"; IPv6: cloud-init, EphemeralIPNetwork.
		rule("100.100.100.200/32", reachNever, metadata),
		rule("fd00:100::100:200/128", reachNever, metadata),
		rule("fd00:42::42/128", reachNever, metadata),       // Scaleway: cloud-init, its datasource
		rule("fd00:a9fe:a9fe::1/128", reachNever, metadata), // Akamai, "Metadata service API"
		rule("100.96.0.96/32", reachNever, metadata),        // Volcengine: volcengine/cello
		rule("100.80.80.80/32", reachNever, metadata),       // UCloud, "metadata-server"

		rule("0.0.0.0/8", reachNever, "an unspecified address"),
		rule("10.0.0.0/8", reachPrivate, "a private address"),
		rule("100.64.0.0/10", reachPrivate, "a private (carrier-grade NAT) address"),
		rule("127.0.0.0/8", reachLoopback, "a loopback address"),
		rule("169.254.0.0/16", reachNever, "a link-local address"),
		rule("172.16.0.0/12", reachPrivate, "a private address"),
		rule("192.0.0.0/24", reachNever, reserved),   // IETF protocol assignments
		rule("192.0.2.0/24", reachNever, reserved),   // documentation
		rule("192.88.99.0/24", reachNever, reserved), // 6to4 relay anycast, deprecated by RFC 7526
		rule("192.168.0.0/16", reachPrivate, "a private address"),
		rule("198.18.0.0/15", reachNever, reserved),   // benchmarking
		rule("198.51.100.0/24", reachNever, reserved), // documentation
		rule("203.0.113.0/24", reachNever, reserved),  // documentation
		rule("224.0.0.0/4", reachNever, "a multicast address"),
		rule("240.0.0.0/4", reachNever, reserved), // and the limited broadcast
		rule("0.0.0.0/0", reachPublic, "a public address"),

		rule("::/128", reachNever, "an unspecified address"),
		rule("::1/128", reachLoopback, "a loopback address"),
		rule("2001::/23", reachNever, reserved),           // protocols, Teredo (RFC 4380)
		rule("2001:db8::/32", reachNever, reserved),       // documentation
		rule("2002::/16", reachNever, reserved),           // 6to4 (RFC 3056) hides an IPv4 address
		rule("3fff::/20", reachNever, reserved),           // documentation (RFC 9637)
		rule("2000::/3", reachPublic, "a public address"), // all of IANA's global unicast
		rule("fc00::/7", reachPrivate, "a private (unique local) address"),
		rule("fe80::/10", reachNever, "a link-local address"),
		rule("ff00::/8", reachNever, "a multicast address"),
		// The rest of IPv6: IPv4-compatible ::/96, local-use NAT64 64:ff9b:1::/48 (RFC 8215: its
		// IPv4 address cannot be located), discard-only 100::/64, site-local fec0::/10, …
		rule("::/0", reachNever, reserved),
	}
}

// classify returns the reach of addr, and what kind of address it is.
func (g *Guard) classify(addr netip.Addr) (reach, string) {
	plain := unmap(addr)
	for _, r := range g.ranges {
		if r.prefix.Contains(plain) {
			return r.reach, r.name
		}
	}
	return reachNever, "not an address" // the zero netip.Addr
}

// unmap returns the IPv4 address that packets to an IPv4-mapped address (RFC 4291 §2.5.5.2) or to
// one of the well-known NAT64 prefix (RFC 6052 §2.1) reach.
func unmap(addr netip.Addr) netip.Addr {
	addr = addr.WithZone("").Unmap()
	if nat64 := netip.MustParsePrefix("64:ff9b::/96"); nat64.Contains(addr) {
		bytes := addr.As16()
		return netip.AddrFrom4([4]byte(bytes[12:]))
	}
	return addr
}

// checkAddress returns an *Error unless a host may be at addr. Its text is found followed by the
// kind of address. An unlisted host gets here only while allowed_hosts is empty.
func (g *Guard) checkAddress(addr netip.Addr, listed bool, found string) error {
	reach, kind := g.classify(addr)
	switch {
	case reach == reachPublic,
		reach != reachNever && listed,
		reach == reachLoopback && g.allowInsecure:
		return nil
	case reach == reachNever:
		return reject("%s %s, which is never allowed", found, kind)
	default:
		return rejectUnlisted("%s %s, which is allowed only for a host listed in allowed_hosts",
			found, kind)
	}
}
