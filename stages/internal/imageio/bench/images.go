//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/image/bmp"
	"golang.org/x/image/draw"
)

// sharedData walks up to the folder of real images; it is "" if there is none.
func sharedData() string {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		data := filepath.Join(dir, "shared", "data")
		if info, bad := os.Stat(data); bad == nil && info.IsDir() {
			return data
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return ""
}

// pictures returns n images of a tar of the real images, evenly spread, or
// generated ones of the given size where it is missing, and what they are.
func (b *bench) pictures(name string, n, width, height int) (files [][]byte, what string, err error) {
	path := filepath.Join(b.data, name)
	files, err = members(path)
	if errors.Is(err, fs.ErrNotExist) {
		for i := range min(n, 100) {
			var out bytes.Buffer
			if err := jpeg.Encode(&out, photograph(width, height, uint64(i)), &jpeg.Options{Quality: 90}); err != nil {
				return nil, "", err
			}
			files = append(files, out.Bytes())
		}
		return files, fmt.Sprintf("GENERATED images of %d × %d: %s is missing", width, height, path), nil
	}
	return spread(files, n), name, err
}

// members reads the files of a tar.
func members(path string) (files [][]byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	for r := tar.NewReader(file); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("read %s of %s: %w", h.Name, path, err)
		}
		files = append(files, data)
	}
}

// spread returns n of all, evenly, or all if there are no more.
func spread[T any](all []T, n int) (some []T) {
	n = min(n, len(all))
	for i := range n {
		some = append(some, all[i*len(all)/n])
	}
	return some
}

// photograph is smooth colour with an edge and a little noise, which is what
// photographs are like to a decoder.
func photograph(width, height int, seed uint64) image.Image {
	r := rand.New(rand.NewPCG(seed, 1))
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	cx, cy, radius := r.Float64()*float64(width), r.Float64()*float64(height), float64(min(width, height))/3
	long := 8 + 40*r.Float64()
	for y := range height {
		for x := range width {
			level := 128 + 60*math.Sin(float64(x)/long) + 40*math.Cos(float64(y)/long+float64(x)/(3*long))
			if math.Hypot(float64(x)-cx, float64(y)-cy) < radius {
				level *= 0.5
			}
			var c [3]byte
			for i := range c {
				c[i] = byte(min(max(level+15*float64(i)+6*r.NormFloat64(), 0), 255))
			}
			m.SetRGBA(x, y, color.RGBA{c[0], c[1], c[2], 255})
		}
	}
	return m
}

// enlarged returns the landscapes among the photographs at 2000 × 1500, n of
// them, quality 90 and halved chroma.
func enlarged(photographs [][]byte, n int) (files [][]byte, err error) {
	for _, data := range photographs {
		if len(files) == n {
			break
		}
		m, err := jpeg.Decode(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("decode a photograph to enlarge it: %w", err)
		}
		if m.Bounds().Dx() <= m.Bounds().Dy() || m.ColorModel() != color.YCbCrModel {
			continue
		}
		large := image.NewRGBA(image.Rect(0, 0, 2000, 1500))
		draw.CatmullRom.Scale(large, large.Rect, m, m.Bounds(), draw.Src, nil)
		var out bytes.Buffer
		if err := jpeg.Encode(&out, large, &jpeg.Options{Quality: 90}); err != nil {
			return nil, err
		}
		files = append(files, out.Bytes())
	}
	return files, nil
}

// asBMP returns the photographs' pixels, as image/jpeg decodes them, in files
// that everybody decodes alike.
func asBMP(photographs [][]byte) (files [][]byte, err error) {
	for _, data := range photographs {
		m, err := jpeg.Decode(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("decode a photograph to store it as BMP: %w", err)
		}
		opaque := image.NewRGBA(m.Bounds())
		draw.Draw(opaque, opaque.Rect, m, m.Bounds().Min, draw.Src)
		var out bytes.Buffer
		if err := bmp.Encode(&out, opaque); err != nil {
			return nil, err
		}
		files = append(files, out.Bytes())
	}
	return files, nil
}

// writeFiles puts the images into a new folder, in the order of their names.
func (b *bench) writeFiles(name string, files [][]byte) (folder string, err error) {
	folder = filepath.Join(b.scratch, name)
	if err := os.Mkdir(folder, 0o777); err != nil {
		return "", err
	}
	for i, data := range files {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%06d", i)), data, 0o666); err != nil {
			return "", err
		}
	}
	return folder, nil
}
