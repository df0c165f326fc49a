package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"

	"golang.org/x/sync/errgroup"
)

const publicExponent = 65537

// manyKeys returns RSA keys as PEM. Generating two primes for each would take a quarter of an hour
// for ten thousand keys, so each pair of a few primes makes a key: keys that share a prime are not
// secret, and need not be here.
func manyKeys(count int) ([]string, error) {
	needed := 2
	for needed*(needed-1)/2 < count {
		needed++
	}
	primes, err := findPrimes(needed)
	if err != nil {
		return nil, err
	}
	keys := make([]string, 0, count)
	for i, p := range primes {
		for _, q := range primes[:i] {
			if len(keys) == count {
				return keys, nil
			}
			key, err := keyOf(p, q)
			if err != nil {
				return nil, err
			}
			keys = append(keys, key)
		}
	}
	return keys, nil
}

func findPrimes(count int) ([]*big.Int, error) {
	primes := make([]*big.Int, count)
	var group errgroup.Group
	for i := range primes {
		group.Go(func() error {
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				return err
			}
			primes[i] = key.Primes[0]
			return nil
		})
	}
	return primes, group.Wait()
}

func keyOf(p, q *big.Int) (string, error) {
	one := big.NewInt(1)
	totient := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: publicExponent},
		D:         new(big.Int).ModInverse(big.NewInt(publicExponent), totient),
		Primes:    []*big.Int{p, q},
	}
	key.Precompute()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("key of two primes: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}
