package truth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sela/pipeline"
)

// named is how many images an error names.
const named = 5

// Labels numbers the classes of images in the byte order of their names. It
// calls each once, which calls yield for every image; labels[i] is the class
// of the i-th image as an index of names, or −1 where it has none. Images
// without a class are an error of class Data that says how many they are and
// names five; names and labels are returned with it, for those who can do with
// less. An error of each or the end of the context is returned alone.
func (s *Source) Labels(ctx context.Context, each func(yield func(key, member string) error) error) (names []string, labels []int32, err error) {
	known := map[string]int32{}
	var missing []string
	lacking := 0
	err = each(func(key, member string) error {
		if len(labels)%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		class, ok := s.Class(key, member)
		if !ok {
			if lacking++; len(missing) < named {
				missing = append(missing, place(key, member))
			}
			labels = append(labels, -1)
			return nil
		}
		number, ok := known[class]
		if !ok {
			number = int32(len(names))
			class = strings.Clone(class) // it may be a part of the image's name
			known[class], names = number, append(names, class)
		}
		labels = append(labels, number)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	names, labels = sorted(names, labels)
	if lacking > 0 {
		return names, labels, pipeline.BadData(fmt.Errorf("truth %s: %d of %d images have no class: %s: %w", s.name, lacking, len(labels), enumerate(missing, lacking), s.remedy()))
	}
	return names, labels, nil
}

// sorted renumbers labels by the order of names.
func sorted(names []string, labels []int32) ([]string, []int32) {
	order := slices.Sorted(slices.Values(names))
	rank := make([]int32, len(names))
	for i, name := range names {
		at, _ := slices.BinarySearch(order, name)
		rank[i] = int32(at)
	}
	for i, l := range labels {
		if l >= 0 {
			labels[i] = rank[l]
		}
	}
	return order, labels
}

func enumerate(first []string, all int) string {
	if all > len(first) {
		return strings.Join(first, ", ") + ", …"
	}
	return strings.Join(first, ", ")
}

func (s *Source) remedy() error {
	if s.classes == nil {
		return errors.New("put them into folders named by their classes, or give a CSV file of key,member,class")
	}
	return errors.New("add their lines to the table, or leave the images out")
}
