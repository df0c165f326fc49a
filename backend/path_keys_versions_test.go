package backend

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestKeyVersions_ReadHasAllOfOneVersion(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	first := m.read("keys/myapi").Data
	m.write("keys/myapi/rotate", nil)
	for number, want := range map[int]map[string]any{1: first, 2: m.read("keys/myapi").Data} {
		data := m.read(fmt.Sprintf("keys/myapi/versions/%d", number)).Data
		require.Equal(t, number, data["version"])
		require.Equal(t, want["public_key"], data["public_key"])
		require.Equal(t, want["key_id"], data["key_id"])
		for name, value := range m.version(number) {
			require.Equal(t, value, data[name], name)
		}
		var jwk jose.JSONWebKey
		require.NoError(t, json.Unmarshal([]byte(data["jwk"].(string)), &jwk))
		require.True(t, jwk.IsPublic())
		require.Equal(t, data["key_id"], jwk.KeyID)
		certificate := m.do(logical.ReadOperation, "keys/myapi/certificate", map[string]any{"version": number}).Data
		for name, value := range certificate {
			require.Equal(t, value, data[name], name)
		}
		require.Len(t, certificate, 5)
	}
	require.Equal(t, m.read("keys/myapi/versions/2").Data["certificate"], m.read("keys/myapi/certificate").Data["certificate"],
		"by default the one to register now")
}

func TestKeyVersions_UnknownOneIsRejected(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	m.write("keys/myapi/rotate", nil)
	m.write("keys/myapi/destroy", map[string]any{"version": 2})
	for version, text := range map[string]string{
		"0":   "version: must be at least 1, not 0",
		"-1":  "version: must be at least 1, not -1",
		"x":   "version: must be a whole number",
		"1.0": "version: must be a whole number",
		"2":   `version: key "myapi" has no version 2; it has 1`,
	} {
		require.Equal(t, text, m.refused(logical.ReadOperation, "keys/myapi/versions/"+version, nil))
		require.Equal(t, text, m.refused(logical.ReadOperation, "keys/myapi/certificate", map[string]any{"version": version}))
	}
}

func TestKeyVersions_OfAnUnknownKeyAreNotFound(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for _, path := range []string{"certificate", "jwks", "versions/1"} {
		require.Nil(t, m.do(logical.ReadOperation, "keys/none/"+path, nil), path)
	}
	require.Nil(t, m.do(logical.ListOperation, "keys/none/versions", nil))
}

func TestList_ShowsEachKeysState(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	registered := map[string]any{"type": "ed25519", "client_id": "c", "issuer": p.issuer()}
	for _, name := range []string{"waiting", "staged", "disabled"} {
		m.write("keys/"+name, registered)
	}
	m.write("keys/disabled", map[string]any{"disabled": true})
	m.write("keys/staged/rotate", nil)
	m.write("keys/unregistered", map[string]any{"type": "ed25519", "client_id": "c"})
	m.write("keys/damaged", registered)
	require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: "key/damaged", Value: []byte("{")}))
	m.read("creds/myapi")

	rows := m.rows("keys/")
	require.Len(t, rows, 6)
	require.Equal(t, map[string]any{
		"type": "ed25519", "client_id": "my-client", "issuer": p.issuer(), "active_version": 1, "staged_version": 0, "state": "ready",
	}, rows["myapi"])
	for _, name := range []string{"waiting", "staged", "disabled", "unregistered"} {
		require.Equal(t, name, rows[name].(map[string]any)["state"])
	}
	require.Equal(t, 2, rows["staged"].(map[string]any)["staged_version"])
	require.Equal(t, map[string]any{"state": "unreadable"}, rows["damaged"])
}

func TestList_ShowsEachRole(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	m.write("roles/other", map[string]any{"key": "myapi", "delivery": "shared", "scopes": "a,b"})
	require.Equal(t, map[string]any{
		"myapi": map[string]any{"key": "myapi", "delivery": "leased", "scopes": []string{}},
		"other": map[string]any{"key": "myapi", "delivery": "shared", "scopes": []string{"a", "b"}},
	}, m.rows("roles/"))
}

// TestList_ReadsEachEntryAndCachesNone: a list of thousands parses no private key.
func TestList_ReadsEachEntryAndCachesNone(t *testing.T) {
	t.Parallel()
	m := mountOver(t, format1Storage(t), &clock{})
	names := m.list("keys/")
	require.NotEmpty(t, names)
	require.Len(t, m.rows("roles/"), len(m.list("roles/")))
	require.Empty(t, m.keys.values)
	require.Empty(t, m.roles.values)

	for path, entry := range m.storage.entries(t) {
		entry = regexp.MustCompile(`"private_key":"[^"]+"`).ReplaceAllString(entry, `"private_key":"AAAA"`)
		require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: path, Value: []byte(entry)}))
	}
	for _, name := range names {
		require.NotEqual(t, "unreadable", m.rows("keys/")[name].(map[string]any)["state"], "no private key is parsed")
	}
	_, err := m.handle(t.Context(), logical.ReadOperation, "keys/"+names[0], nil)
	require.ErrorContains(t, err, "damaged", "a read parses it")
}

func TestList_OfKeysThatFailsIsAnError(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	m.storage.failNth(2, func(v verb) bool { return !v.writes() })
	_, err := m.handle(t.Context(), logical.ListOperation, "keys/", nil)
	require.ErrorIs(t, err, errStorage)
}

func TestKeyVersions_ListHasTheInstants(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	m.read("creds/myapi")
	row := m.version(1)
	for _, field := range []string{"creation_time", "activation_time", "accepted_time"} {
		_, err := time.Parse(time.RFC3339, row[field].(string))
		require.NoError(t, err, field)
	}
	require.Empty(t, row["expire_time"])
	require.Len(t, row, 8)
}

func TestRotate_StagesAVersionAndReturnsTheNextStep(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	before := m.read("keys/myapi").Data
	answer := m.write("keys/myapi/rotate", nil)
	require.Equal(t, 2, answer.Data["staged_version"])
	require.Equal(t, 1, answer.Data["active_version"])
	require.Equal(t, 2, answer.Data["public_key_version"], "the one to register now")
	require.NotEqual(t, before["public_key"], answer.Data["public_key"])
	require.Equal(t, m.read("keys/myapi").Data, answer.Data, "it returns the key's read")
	require.Empty(t, answer.Warnings)
	require.Equal(t, "At the provider, replace the registered public key with the output of `vault read -field=public_key bcgov-jwt/keys/myapi`. The next read of creds then switches to version 2.", answer.Data["next_step"])

	staged := m.version(2)
	require.Equal(t, "staged", staged["state"])
	require.Equal(t, "generated", staged["origin"])
	require.Equal(t, answer.Data["key_id"], staged["key_id"])
	require.NotEmpty(t, staged["creation_time"])
	for _, field := range []string{"activation_time", "activated_by", "accepted_time", "expire_time"} {
		require.Empty(t, staged[field], field)
	}
	require.Equal(t, "active", m.version(1)["state"])
	require.Equal(t, "creation", m.version(1)["activated_by"])
	require.Equal(t, 1, m.signedBy())
}

func TestRotate_StagedVersionIsReturnedAgain(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	first := m.write("keys/myapi/rotate", nil)
	before := m.storage.entries(t)
	again := m.write("keys/myapi/rotate", nil)
	require.Equal(t, first.Data, again.Data)
	require.Equal(t, []string{"Version 2 was staged before and may be registered by now: no other was created."}, again.Warnings)
	require.Equal(t, before, m.storage.entries(t))
}

func TestRotate_EleventhVersionIsRejected(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	for range 9 {
		m.write("keys/myapi/rotate", nil)
		m.write("keys/myapi/activate", map[string]any{"force": true})
	}
	require.Len(t, m.states(), 10)
	text := m.refused(logical.UpdateOperation, "keys/myapi/rotate", nil)
	require.Contains(t, text, "has 10 versions, the maximum")
	require.Contains(t, text, "vault write bcgov-jwt/keys/myapi/destroy version=")
	m.write("keys/myapi/destroy", map[string]any{"version": 2})
	require.Equal(t, 11, m.write("keys/myapi/rotate", nil).Data["staged_version"])
}

func TestRotate_ExpiredVersionsMakeRoom(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("keys/myapi", map[string]any{"overlap_period": 120})
	for range 9 {
		m.write("keys/myapi/rotate", nil)
		m.write("keys/myapi/activate", map[string]any{"force": true})
	}
	p.registerVersion(m, 10)
	require.Equal(t, 10, m.signedBy())
	pass(m, p, 2*time.Minute)
	require.Equal(t, 11, m.write("keys/myapi/rotate", nil).Data["staged_version"])
	require.Equal(t, map[string]string{"10": "active", "11": "staged"}, m.states())
}

func TestKey_ActionsOnAnAbsentOrInvalidNameAreRejected(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for action, data := range map[string]map[string]any{"rotate": nil, "activate": nil, "destroy": {"version": 1}} {
		text := m.refused(logical.UpdateOperation, "keys/none/"+action, data)
		require.Contains(t, text, `name: key "none" does not exist; list the keys with: vault list bcgov-jwt/keys`)
		require.Contains(t, m.refused(logical.UpdateOperation, "keys/a..b/"+action, data), "is invalid; use up to 128 letters, digits")
	}
}

func TestRotate_VersionNumbersAreNotReused(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	for want := 2; want < 6; want++ {
		m.storage.intercept(nil)
		require.Equal(t, want, m.write("keys/myapi/rotate", nil).Data["staged_version"])
		m.write("keys/myapi/destroy", map[string]any{"version": want})
		m = mountOver(t, m.storage, m.clock)
	}
}

func TestKeyWrite_RegistrationIsFixedWhileAVersionIsStaged(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	m.write("keys/myapi/rotate", nil)
	for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		text := m.refused(operation, "keys/myapi", map[string]any{"registration": "jwks"})
		require.Contains(t, text, "registration: cannot be changed while version 2 is staged")
	}
	m.write("keys/myapi", map[string]any{"registration": "manual", "client_id": "other"}) // the same value is no change
	m.write("keys/myapi/destroy", map[string]any{"version": 2})
	m.write("keys/myapi", map[string]any{"registration": "jwks"})
	m.write("keys/myapi/rotate", nil)
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"registration": ""}), "registration: cannot be changed while version 3 is staged")
}

func TestKeyWrite_OverlapPeriodExceedsAssertionTTL(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/myapi", map[string]any{"type": "ed25519", "overlap_period": 120})
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"overlap_period": 119}), "overlap_period: 1m59s is too short for assertion_ttl 45s; set at least 2m")
	require.Contains(t, m.refused(logical.PatchOperation, "keys/myapi", map[string]any{"assertion_ttl": 46}), "overlap_period: 2m is too short for assertion_ttl 46s")
	m.write("keys/myapi", map[string]any{"assertion_ttl": 3600, "overlap_period": 3675})
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"overlap_period": 3674}), "overlap_period: ")
	m.write("keys/myapi", map[string]any{"assertion_ttl": "", "overlap_period": 120})
}

func TestKeyWrite_AutoRotatePeriodRequiresJWKSAndAnHour(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/myapi", map[string]any{"type": "ed25519"})
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"auto_rotate_period": "24h"}), "auto_rotate_period: requires registration=jwks")
	m.write("keys/myapi", map[string]any{"auto_rotate_period": "1h", "registration": "jwks"})
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"auto_rotate_period": "59m59s"}), "set at least 1h")
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"registration": "manual"}), "auto_rotate_period: requires registration=jwks")
	m.write("keys/myapi", map[string]any{"auto_rotate_period": 0, "registration": "manual"})
}

// TestRotate_ManualEndToEnd: the next read after the new key was pasted switches over, one after the old key
// was pasted again switches back, and the old private key is deleted after overlap_period.
func TestRotate_ManualEndToEnd(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("keys/myapi", map[string]any{"overlap_period": 120})
	require.Equal(t, 1, m.signedBy())
	m.write("keys/myapi/rotate", nil)
	require.Equal(t, 1, m.signedBy())

	p.registerVersion(m, 2)
	require.Equal(t, 2, m.signedBy(), "the very next read")
	require.Equal(t, map[string]string{"1": "retired", "2": "active"}, m.states())
	require.Equal(t, "provider", m.version(2)["activated_by"])
	require.NotEmpty(t, m.version(2)["accepted_time"])
	require.NotEmpty(t, m.version(1)["expire_time"])
	const line = "active version changed by provider acceptance"
	require.Equal(t, 1, strings.Count(m.log.String(), line))
	require.Contains(t, m.log.String(), "key=myapi from=1 to=2 role=myapi request_id=request-1")
	writes := m.storage.writes()
	require.Equal(t, 2, m.signedBy())
	require.Equal(t, writes, m.storage.writes(), "one stored switch")

	p.registerVersion(m, 1) // the old key, pasted again
	require.Equal(t, 1, m.signedBy())
	require.Equal(t, writes, m.storage.writes(), "at most one stored switch a minute")
	pass(m, p, 61*time.Second)
	require.Equal(t, 1, m.signedBy())
	require.Equal(t, map[string]string{"1": "active", "2": "staged"}, m.states(), "the rejected one is staged again")
	require.Empty(t, m.version(1)["expire_time"])
	pass(m, p, 24*time.Hour)
	m.runPeriodic()
	require.Len(t, m.states(), 2, "neither has ended")

	p.registerVersion(m, 2)
	require.Equal(t, 2, m.signedBy())
	requireTheOldOneEnds(t, m, p)
	require.Equal(t, 2, m.signedBy())
}

// requireTheOldOneEnds asserts that version 1 is deleted 120 s after version 2 was accepted, without a trace.
func requireTheOldOneEnds(t *testing.T, m *mount, p *provider) {
	t.Helper()
	private, index := m.privateKeys()[1], "spki/"+m.version(1)["key_id"].(string)
	require.Contains(t, m.storage.entries(t), index)
	pass(m, p, 118*time.Second)
	m.runPeriodic()
	require.Contains(t, m.privateKeys(), 1, "not before its time")
	pass(m, p, 3*time.Second)
	require.NotContains(t, m.read("keys/myapi/jwks").Data["jwks"], m.version(1)["key_id"], "no longer published, whether or not it is deleted")
	m.runPeriodic()
	require.Equal(t, map[string]string{"2": "active"}, m.states())
	for path, value := range m.storage.entries(t) {
		require.NotContains(t, value, private, path)
	}
	require.NotContains(t, m.storage.entries(t), index)
}

func TestRotate_VersionThatTheProviderKnowsDoesNotExpire(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("keys/myapi", map[string]any{"overlap_period": 120})
	m.read("creds/myapi")
	m.write("keys/myapi/rotate", nil)
	m.write("keys/myapi/activate", map[string]any{"force": true})
	require.Empty(t, m.version(1)["expire_time"])
	pass(m, p, 100*24*time.Hour)
	m.runPeriodic()
	require.Equal(t, 1, m.signedBy(), "the provider still knows that one")
}

func TestRotate_ErrorNamesEveryRejectedVersion(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("keys/other", map[string]any{"type": "ed25519"})
	m.write("keys/myapi/rotate", nil)
	p.register(m, "other", "my-client")
	text := m.refused(logical.ReadOperation, "creds/myapi", nil)
	require.Contains(t, text, "Unable to load public key")
	require.Contains(t, text, "version 2 (staged) was also rejected: ")
	require.Contains(t, text, "vault read -field=public_key bcgov-jwt/keys/myapi")
	requireClean(t, text)
}

func TestRotate_ReadOnlyNodeKeepsWhatItLearnedInMemory(t *testing.T) {
	t.Parallel()
	writer, p := newReadyMount(t)
	writer.write("roles/myapi", map[string]any{"delivery": "unleased"})
	writer.read("creds/myapi")
	writer.write("keys/myapi/rotate", nil)
	standby := nodeOver(t, writer.storage, writer.clock, consts.ReplicationPerformanceStandby)
	require.Equal(t, 1, standby.signedBy())

	before := writer.storage.entries(t)
	p.registerVersion(writer, 2)
	require.Equal(t, 2, standby.signedBy())
	asked := len(p.requests(tokenPath))
	_, err := standby.handle(t.Context(), logical.ReadOperation, "creds/myapi", nil)
	require.ErrorIs(t, err, logical.ErrReadOnly, "one read is forwarded, for the switch to be stored")
	require.Len(t, p.requests(tokenPath), asked, "before anything is sent")
	for range 5 {
		require.Equal(t, 2, standby.signedBy())
	}
	require.Len(t, p.requests(tokenPath), asked+5, "the rejected version is not tried again")
	require.Equal(t, before, writer.storage.entries(t))
	require.Equal(t, 1, standby.read("keys/myapi").Data["active_version"], "storage is unchanged")
	require.Equal(t, 2, writer.signedBy())
	require.Equal(t, 2, writer.read("keys/myapi").Data["active_version"])

	for _, action := range []string{"rotate", "activate", "destroy", "import"} {
		_, err := standby.handle(t.Context(), logical.UpdateOperation, "keys/myapi/"+action, nil)
		require.ErrorIs(t, err, logical.ErrReadOnly, "Vault forwards it")
	}
	_, err = standby.handle(t.Context(), logical.ReadOperation, "wrapping_key", nil)
	require.ErrorIs(t, err, logical.ErrReadOnly)
}

// TestRotate_ChangeDuringAReadIsKept holds the provider's response to the version to switch to.
func TestRotate_ChangeDuringAReadIsKept(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		meanwhile func(m *mount)
		states    map[string]string
	}{
		"destroyed": {
			meanwhile: func(m *mount) { m.write("keys/myapi/destroy", map[string]any{"version": 2}) },
			states:    map[string]string{"1": "active"},
		},
		"destroyed, and another made": {
			meanwhile: func(m *mount) {
				m.write("keys/myapi/destroy", map[string]any{"version": 2})
				m.write("keys/myapi/rotate", nil)
			},
			states: map[string]string{"1": "active", "3": "staged"},
		},
		"activated": {
			meanwhile: func(m *mount) { m.write("keys/myapi/activate", map[string]any{"force": true}) },
			states:    map[string]string{"1": "retired", "2": "active"},
		},
		"activated, and the old one destroyed": {
			meanwhile: func(m *mount) {
				m.write("keys/myapi/activate", map[string]any{"force": true})
				m.write("keys/myapi/destroy", map[string]any{"version": 1})
			},
			states: map[string]string{"2": "active"},
		},
		"deleted, and made again": {
			meanwhile: func(m *mount) {
				m.delete("roles/myapi")
				m.delete("keys/myapi")
				m.write("keys/myapi", map[string]any{"type": "ed25519"})
				m.write("keys/myapi/rotate", nil)
			},
			states: map[string]string{"1": "active", "2": "staged"},
		},
		"deleted": {meanwhile: func(m *mount) { m.delete("roles/myapi"); m.delete("keys/myapi") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newReadyMount(t)
			m.write("keys/myapi", map[string]any{"deletion_allowed": true})
			m.read("creds/myapi")
			m.write("keys/myapi/rotate", nil)
			compromised := m.privateKeys()[2]
			p.registerVersion(m, 2)
			arrived, release := p.holdToken(2) // the first is rejected
			read := make(chan error, 1)
			go func() {
				resp, err := m.send(logical.ReadOperation, "creds/myapi", nil)
				if err == nil && resp.IsError() {
					err = resp.Error()
				}
				read <- err
			}()
			<-arrived
			test.meanwhile(m)
			before := m.storage.entries(t)
			release()
			require.NoError(t, <-read, "its token is valid")
			require.Equal(t, before, m.storage.entries(t), "what was learned did not undo it")
			require.NotContains(t, m.log.String(), "active version changed by provider acceptance")
			if test.states == nil {
				require.Nil(t, m.read("keys/myapi"))
				return
			}
			require.Equal(t, test.states, m.states())
			if _, there := test.states["2"]; !there {
				for _, value := range m.storage.entries(t) {
					require.NotContains(t, value, compromised)
				}
			}
		})
	}
}

// TestRotate_ReadOvertakenByARotationSucceeds holds a read that knows one version while that is replaced at the provider.
func TestRotate_ReadOvertakenByARotationSucceeds(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.read("creds/myapi")
	arrived, release := p.holdToken(1)
	read := make(chan error, 1)
	go func() { read <- sent(logical.ReadOperation, "creds/myapi", nil)(m) }()
	<-arrived
	m.write("keys/myapi/rotate", nil)
	p.registerVersion(m, 2)
	release()
	require.NoError(t, <-read)
	require.Equal(t, map[string]string{"1": "retired", "2": "active"}, m.states())
}

func TestRotate_ReadDuringAWriteIsNotCached(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	var during any
	m.storage.intercept(func(v verb, path string) error {
		if v == put && path == "key/myapi" {
			m.InvalidateKey(t.Context(), path)
			during = m.read("keys/myapi").Data["staged_version"]
		}
		return nil
	})
	m.write("keys/myapi/rotate", nil)
	require.Equal(t, 0, during, "it is not stored yet")
	require.Equal(t, 2, m.read("keys/myapi").Data["staged_version"])
	require.Equal(t, 2, m.write("keys/myapi", map[string]any{"client_id": "other"}).Data["staged_version"])
}

func TestDestroy_VersionIsGone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		prepare func(m *mount)
		version int
		left    map[string]string
	}{
		"staged":  {func(*mount) {}, 2, map[string]string{"1": "active"}},
		"retired": {func(m *mount) { m.write("keys/myapi/activate", map[string]any{"force": true}) }, 1, map[string]string{"2": "active"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, _ := newReadyMount(t)
			m.write("keys/myapi/rotate", nil)
			test.prepare(m)
			private, keyID := m.privateKeys()[test.version], m.version(test.version)["key_id"].(string)
			require.Contains(t, m.storage.entries(t), "spki/"+keyID)

			answer := m.write("keys/myapi/destroy", map[string]any{"version": test.version})
			require.Equal(t, m.read("keys/myapi").Data, answer.Data)
			require.Contains(t, strings.Join(answer.Warnings, "\n"), "is permanently deleted. If its public key is registered, the provider accepts it until it is replaced there.")
			require.Equal(t, test.left, m.states())
			require.NotContains(t, m.read("keys/myapi/jwks").Data["jwks"], keyID)
			for path, value := range m.storage.entries(t) {
				require.NotContains(t, value, private, path)
				require.NotContains(t, path, keyID)
			}
			require.Contains(t, m.log.String(), "key version destroyed: key=myapi version=")
			require.Equal(t, test.left, mountOver(t, m.storage, m.clock).states())
		})
	}
}

func TestDestroy_OfTheOnlyVersionNamesTheAlternatives(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	require.Equal(t, "version: 1 is active; rotate and activate another first, or disable the key with: vault write bcgov-jwt/keys/myapi disabled=true",
		m.refused(logical.UpdateOperation, "keys/myapi/destroy", map[string]any{"version": 1}))
}

func TestDestroy_IsRejected(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		data map[string]any
		says []string
	}{
		"the active one":       {map[string]any{"version": 1}, []string{"version: 1 is active until the provider accepts version 2; register its public_key, then read creds"}},
		"an unknown one":       {map[string]any{"version": 7}, []string{`version: key "myapi" has no version 7; it has 1, 2`}},
		"zero":                 {map[string]any{"version": 0}, []string{"version: "}},
		"a negative one":       {map[string]any{"version": -1}, []string{"version: "}},
		"none":                 {nil, []string{"version: is required", "vault list -detailed bcgov-jwt/keys/myapi/versions"}},
		"an empty one":         {map[string]any{"version": ""}, []string{"version: is required"}},
		"no number":            {map[string]any{"version": "latest"}, []string{"version: must be a whole number"}},
		"a fraction":           {map[string]any{"version": 1.5}, []string{"version: must be a whole number"}},
		"another field's name": {map[string]any{"versions": "2"}, []string{`unknown field "versions"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, _ := newReadyMount(t)
			m.write("keys/myapi/rotate", nil)
			text := m.refused(logical.UpdateOperation, "keys/myapi/destroy", test.data)
			for _, part := range test.says {
				require.Contains(t, text, part)
			}
		})
	}
}

func TestKey_DeletionAcceptsNoVersion(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/myapi", map[string]any{"type": "ed25519", "deletion_allowed": true})
	m.write("keys/myapi/rotate", nil)
	require.Contains(t, m.refused(logical.DeleteOperation, "keys/myapi", map[string]any{"version": 2}), `unknown field "version"`,
		"who means one version must not lose the key")
}

// TestList_OfAnEntryDeletedMeanwhileHasNoNull: on a null, Vault's CLI panics.
func TestList_OfAnEntryDeletedMeanwhileHasNoNull(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	for path, stored := range map[string]string{"keys/": "key/myapi", "roles/": "role/myapi"} {
		m.storage.intercept(func(v verb, _ string) error {
			if v != get {
				return nil
			}
			m.storage.intercept(nil)
			return m.storage.Delete(t.Context(), stored)
		})
		require.Equal(t, map[string]any{"myapi": map[string]any{}}, m.rows(path))
	}
}
