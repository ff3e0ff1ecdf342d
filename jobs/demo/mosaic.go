package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"os"
	"sort"
	"strconv"

	_ "image/jpeg" // the formats of the demo's images
	"image/png"

	"golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// The mosaic's measures, in pixels and cells.
const (
	mosaicClusters = 12
	mosaicColumns  = 2 // of clusters, side by side
	mosaicImages   = 8 // of each cluster
	tile           = 64
	gap            = 4
	gutter         = 44 // for the cluster's number
	margin         = 12
)

var (
	mosaicPaper = color.RGBA{0xff, 0xff, 0xff, 0xff}
	mosaicInk   = color.RGBA{0x6b, 0x72, 0x80, 0xff}
)

// writeMosaic draws the head's first clusters to a PNG.
func writeMosaic(file, folder string, l *labels) error {
	picks := mostProbable(l, mosaicClusters, mosaicImages)
	images, err := loadImages(folder, picks)
	if err != nil {
		return err
	}
	sheet, err := drawMosaic(picks, images)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	best := png.Encoder{CompressionLevel: png.BestCompression}
	if err := best.Encode(&out, sheet); err != nil {
		return fmt.Errorf("encode mosaic: %w", err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write mosaic: %w", err)
	}
	return nil
}

// pick is a cluster with its most probable images, surest first.
type pick struct {
	cluster int32
	names   []name
}

// mostProbable returns the first clusters of a head that have images, with at
// most the given number of images each. Of images equally probable the earlier
// row comes first.
func mostProbable(l *labels, clusters, images int) []pick {
	rows := make([][]int, l.proof.Clusters)
	for row, label := range l.label {
		rows[label] = append(rows[label], row)
	}
	var picks []pick
	for cluster, members := range rows {
		if len(members) == 0 {
			continue
		}
		if len(picks) == clusters {
			break
		}
		sort.SliceStable(members, func(i, j int) bool { return l.sure[members[i]] > l.sure[members[j]] })
		p := pick{cluster: int32(cluster)}
		for _, row := range members[:min(images, len(members))] {
			p.names = append(p.names, l.names[row])
		}
		picks = append(picks, p)
	}
	return picks
}

// loadImages decodes the images of all picks from a bucket's local folder.
// Each tar is read once.
func loadImages(folder string, picks []pick) (map[name]image.Image, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("open the images: %w", err)
	}
	defer root.Close()
	images := map[name]image.Image{}
	wanted := map[string]map[string]bool{} // members by tar
	for _, p := range picks {
		for _, n := range p.names {
			if n.Member != "" {
				if wanted[n.Key] == nil {
					wanted[n.Key] = map[string]bool{}
				}
				wanted[n.Key][n.Member] = true
				continue
			}
			data, err := root.ReadFile(n.Key)
			if err != nil {
				return nil, fmt.Errorf("read image: %w", err)
			}
			if images[n], _, err = image.Decode(bytes.NewReader(data)); err != nil {
				return nil, fmt.Errorf("decode %s: %w", n.Key, err)
			}
		}
	}
	for key, members := range wanted {
		if err := loadMembers(root, key, members, images); err != nil {
			return nil, fmt.Errorf("read %s: %w", key, err)
		}
	}
	return images, nil
}

// loadMembers decodes the wanted members of a tar into images and strikes them
// off.
func loadMembers(root *os.Root, key string, wanted map[string]bool, images map[name]image.Image) error {
	f, err := root.Open(key)
	if err != nil {
		return err
	}
	defer f.Close()
	for archive := tar.NewReader(f); len(wanted) > 0; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%d members that the labels name are missing", len(wanted))
		}
		if err != nil {
			return err
		}
		if !wanted[header.Name] {
			continue
		}
		img, _, err := image.Decode(archive)
		if err != nil {
			return fmt.Errorf("decode member %s: %w", header.Name, err)
		}
		images[name{key, header.Name}] = img
		delete(wanted, header.Name)
	}
	return nil
}

// drawMosaic lays the picks out in columns, one line of images per cluster
// with the cluster's number before it.
func drawMosaic(picks []pick, images map[name]image.Image) (*image.RGBA, error) {
	parsed, err := opentype.Parse(gomono.TTF)
	if err != nil {
		return nil, fmt.Errorf("draw mosaic: %w", err)
	}
	face, err := opentype.NewFace(parsed, &opentype.FaceOptions{Size: 16, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		return nil, fmt.Errorf("draw mosaic: %w", err)
	}
	defer face.Close()

	const columnWidth = gutter + mosaicImages*(tile+gap) - gap + 2*margin
	lines := (len(picks) + mosaicColumns - 1) / mosaicColumns
	columns := min(mosaicColumns, len(picks))
	sheet := image.NewRGBA(image.Rect(0, 0, columns*columnWidth, lines*(tile+gap)-gap+2*margin))
	draw.Draw(sheet, sheet.Bounds(), image.NewUniform(mosaicPaper), image.Point{}, draw.Src)
	pen := font.Drawer{Dst: sheet, Src: image.NewUniform(mosaicInk), Face: face}
	for i, p := range picks {
		x, y := i/lines*columnWidth+margin, i%lines*(tile+gap)+margin
		number := strconv.Itoa(int(p.cluster))
		pen.Dot = fixed.P(x+gutter-10, y+tile/2+6)
		pen.Dot.X -= pen.MeasureString(number)
		pen.DrawString(number)
		for j, n := range p.names {
			left := x + gutter + j*(tile+gap)
			place(sheet, image.Rect(left, y, left+tile, y+tile), images[n])
		}
	}
	return sheet, nil
}

// place scales src into the middle of cell, its shape kept. Small images stay
// crisp.
func place(dst draw.Image, cell image.Rectangle, src image.Image) {
	w, h := src.Bounds().Dx(), src.Bounds().Dy()
	longer := max(w, h)
	scaler := draw.Scaler(draw.NearestNeighbor)
	if longer > tile {
		scaler = draw.CatmullRom
	}
	w, h = max(w*tile/longer, 1), max(h*tile/longer, 1)
	corner := cell.Min.Add(image.Pt((tile-w)/2, (tile-h)/2))
	scaler.Scale(dst, image.Rectangle{corner, corner.Add(image.Pt(w, h))}, src, src.Bounds(), draw.Over, nil)
}
