package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
)

// manyKeys returns different RSA keys as PEM. Generating ten thousand would take a quarter of an
// hour, so each pair of a few primes makes a key: such keys are not secret, and need not be here.
func manyKeys(count int) ([]string, error) {
	var primes []*big.Int
	keys := make([]string, 0, count)
	for {
		generated, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		for _, p := range generated.Primes {
			for _, q := range primes {
				if len(keys) == count {
					return keys, nil
				}
				key, err := keyOf(p, q)
				if err != nil {
					return nil, err
				}
				keys = append(keys, key)
			}
			primes = append(primes, p)
		}
	}
}

func keyOf(p, q *big.Int) (string, error) {
	const exponent = 65537
	one := big.NewInt(1)
	totient := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: exponent},
		D:         new(big.Int).ModInverse(big.NewInt(exponent), totient),
		Primes:    []*big.Int{p, q},
	}
	key.Precompute()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), err
}
