package netguard

import (
	_ "embed" // for the table
	"net/netip"
	"strings"
)

// reach is which hosts may be at an address.
type reach string

const (
	reachPublic   reach = "public"
	reachPrivate  reach = "private"
	reachLoopback reach = "loopback"
	reachNever    reach = "never"
)

type addressRange struct {
	prefix netip.Prefix
	reach  reach
	name   string
}

//go:embed addresses.txt
var addressesText string

// addressRanges returns the table of addresses.txt. The first match decides.
func addressRanges() []addressRange {
	var ranges []addressRange
	for line := range strings.SplitSeq(addressesText, "\n") {
		if words := strings.SplitN(line, " ", 3); len(words) == 3 && words[0] != "#" {
			prefix := netip.MustParsePrefix(words[0])
			ranges = append(ranges, addressRange{prefix, reach(words[1]), words[2]})
		}
	}
	return ranges
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
