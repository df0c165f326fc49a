// Command pack writes the archives and the container image of a release. Their bytes depend on
// the files, the arguments and SOURCE_DATE_EPOCH alone: not on the machine's tar, zip or gzip.
//
//	pack archive FILE FOLDER                     FILE ends in .tar, .tar.gz or .zip
//	pack image FOLDER VERSION COMMIT PLATFORM=CONTENT...
//
// image writes an OCI layout into FOLDER: an index with an image for each platform, such as
// linux/amd64, that has the files of the folder CONTENT. It prints the digest of the index.
package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const name = "vault-plugin-bcgov-jwt"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	modified := time.Unix(seconds, 0).UTC()
	switch {
	case len(args) == 3 && args[0] == "archive":
		return writeArchive(args[1], os.DirFS(args[2]), modified)
	case len(args) > 4 && args[0] == "image":
		return writeImage(args[1], args[4:], describe(args[2], args[3], modified), modified)
	}
	return errors.New("usage: pack archive FILE FOLDER | " +
		"pack image FOLDER VERSION COMMIT PLATFORM=CONTENT...")
}

// writeArchive writes a new file.
func writeArchive(file string, content fs.FS, modified time.Time) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	switch {
	case strings.HasSuffix(file, ".zip"):
		err = writeZip(f, content, modified)
	case strings.HasSuffix(file, ".tar.gz"):
		err = writeTarGz(f, content, modified)
	default:
		err = writeTar(f, content, modified)
	}
	return errors.Join(err, f.Close())
}

func writeTarGz(w io.Writer, content fs.FS, modified time.Time) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	return errors.Join(writeTar(z, content, modified), z.Close())
}

func writeTar(w io.Writer, content fs.FS, modified time.Time) error {
	archive := tar.NewWriter(w)
	err := eachFile(content, func(path string, mode fs.FileMode, data []byte) error {
		err := archive.WriteHeader(&tar.Header{
			Name: path, Mode: int64(mode), Size: int64(len(data)), ModTime: modified,
			Format: tar.FormatUSTAR,
		})
		if err == nil {
			_, err = archive.Write(data)
		}
		return err
	})
	return errors.Join(err, archive.Close())
}

func writeZip(w io.Writer, content fs.FS, modified time.Time) error {
	archive := zip.NewWriter(w)
	err := eachFile(content, func(path string, mode fs.FileMode, data []byte) error {
		header := &zip.FileHeader{Name: path, Method: zip.Deflate, Modified: modified}
		header.SetMode(mode)
		entry, err := archive.CreateHeader(header)
		if err == nil {
			_, err = entry.Write(data)
		}
		return err
	})
	return errors.Join(err, archive.Close())
}

// eachFile calls add for each file, in lexical order, with a mode that does not depend on the
// umask.
func eachFile(content fs.FS, add func(path string, mode fs.FileMode, data []byte) error) error {
	return fs.WalkDir(content, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		data, err := fs.ReadFile(content, path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		return add(path, mode, data)
	})
}

// describe returns the annotations that the OCI defines.
func describe(version, commit string, created time.Time) map[string]string {
	const prefix, source = "org.opencontainers.image.", "https://github.com/bcgov/" + name
	return map[string]string{
		prefix + "title":       name,
		prefix + "description": "Vault secrets engine for OAuth 2.0 access tokens by signed JWT",
		prefix + "version":     version,
		prefix + "revision":    commit,
		prefix + "created":     created.Format(time.RFC3339),
		prefix + "source":      source,
		prefix + "licenses":    "Apache-2.0",
	}
}

// writeImage writes the layout and prints the digest of the index in it.
func writeImage(folder string, contents []string, about map[string]string, created time.Time) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, content := range contents {
		platform, files, _ := strings.Cut(content, "=")
		image, err := newImage(platform, os.DirFS(files), about, created)
		if err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
		index = mutate.AppendManifests(index, image)
	}
	index = mutate.Annotations(index, about).(v1.ImageIndex)
	path, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	tag := map[string]string{
		"org.opencontainers.image.ref.name": about["org.opencontainers.image.version"],
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(tag)); err != nil {
		return err
	}
	digest, err := index.Digest()
	if err == nil {
		fmt.Println(digest)
	}
	return err
}

// newImage returns an image of one layer, without a base, that runs the plugin.
func newImage(
	platform string, content fs.FS, labels map[string]string, created time.Time,
) (add mutate.IndexAddendum, err error) {
	parsed, err := v1.ParsePlatform(platform)
	if err != nil {
		return add, err
	}
	layer, err := newLayer(content, created)
	if err != nil {
		return add, err
	}
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS: parsed.OS, Architecture: parsed.Architecture, Variant: parsed.Variant,
		Created: v1.Time{Time: created},
		Config:  v1.Config{Entrypoint: []string{"/" + name}, Labels: labels},
		RootFS:  v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return add, err
	}
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "make release"},
	})
	return mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: parsed}}, err
}

func newLayer(content fs.FS, modified time.Time) (v1.Layer, error) {
	var files bytes.Buffer
	if err := writeTar(&files, content, modified); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files.Bytes())), nil
	}
	return tarball.LayerFromOpener(open, tarball.WithCompressedCaching,
		tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithMediaType(types.OCILayer))
}
