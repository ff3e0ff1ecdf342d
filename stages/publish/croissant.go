package publish

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"sela/pipeline"
	"sela/schemas"
)

// croissantName is the file that describes a published run in the Croissant 1.0
// vocabulary, a JSON-LD vocabulary for data sets.
const croissantName = "croissant.json"

// node is a JSON-LD object; encoding/json writes its names in order.
type node = map[string]any

// croissantContext is the @context that the Croissant 1.0 specification gives.
var croissantContext = node{
	"@language": "en", "@vocab": "https://schema.org/",
	"cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/", "dct": "http://purl.org/dc/terms/", "sc": "https://schema.org/",
	"citeAs": "cr:citeAs", "column": "cr:column", "conformsTo": "dct:conformsTo",
	"data": node{"@id": "cr:data", "@type": "@json"}, "dataType": node{"@id": "cr:dataType", "@type": "@vocab"},
	"equivalentProperty": "cr:equivalentProperty", "examples": node{"@id": "cr:examples", "@type": "@json"},
	"extract": "cr:extract", "field": "cr:field", "fileObject": "cr:fileObject", "fileProperty": "cr:fileProperty", "fileSet": "cr:fileSet",
	"format": "cr:format", "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5",
	"parentField": "cr:parentField", "path": "cr:path", "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex",
	"repeated": "cr:repeated", "replace": "cr:replace", "samplingRate": "cr:samplingRate", "separator": "cr:separator", "source": "cr:source",
	"subField": "cr:subField", "transform": "cr:transform",
}

var croissantTypes = map[string]string{
	"int32": "sc:Integer", "int64": "sc:Integer", "float32": "sc:Float", "float64": "sc:Float", "bool": "sc:Boolean", "string": "sc:Text",
}

// parquetType is what readers of Croissant know Parquet by.
const parquetType = "application/x-parquet"

// croissant describes the published folder: every file of the manifest with its
// sha256, and a record set of each head's labels. Paths are relative to the
// folder, so that a copy of it is described as well.
func croissant(run *pipeline.Run, m *pipeline.Manifest, heads int) ([]byte, error) {
	var distribution, records []node
	for _, f := range m.Files {
		distribution = append(distribution, node{
			"@type": "cr:FileObject", "@id": f.Name, "name": path.Base(f.Name), "contentUrl": f.Path,
			"contentSize": strconv.FormatInt(f.Bytes, 10) + " B", "encodingFormat": parquetType, "sha256": f.SHA256,
		})
	}
	columns := columns(run)
	for h := range heads {
		files, id := fmt.Sprintf("head%d-files", h), fmt.Sprintf("head%d", h)
		distribution = append(distribution, node{
			"@type": "cr:FileSet", "@id": files, "name": files, "description": fmt.Sprintf("Parts of the labels of head %d, in row order.", h),
			"encodingFormat": parquetType, "includes": fmt.Sprintf("labels/head=%d/part-*.parquet", h),
		})
		var fields []node
		for _, c := range columns {
			fields = append(fields, croissantField(id+"/"+c.Name, files, c.Name, "", c))
		}
		records = append(records, node{
			"@type": "cr:RecordSet", "@id": id, "name": id, "field": fields,
			"description": fmt.Sprintf("The label of each image in head %d.", h),
		})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(node{
		"@context": croissantContext, "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.0",
		"name":        run.Job.Name + " " + run.Run,
		"description": strings.ReplaceAll(origin(&run.Job.Solve), "\n", " "),
		// No time of publication: a publication that is tried again writes the same bytes.
		"datePublished": run.Created.UTC().Format(time.RFC3339),
		"distribution":  distribution, "recordSet": records,
	})
	return b.Bytes(), err
}

// croissantField describes a column of a file set, or, with jsonPath, a field of
// the structs in a column.
func croissantField(id, files, column, jsonPath string, c schemas.Column) node {
	meaning := c.Meaning
	if c.Null {
		meaning += " (may be null)"
	}
	field := node{"@type": "cr:Field", "@id": id, "name": c.Name, "description": meaning}
	if c.Fields != nil {
		var inner []node
		for _, f := range c.Fields {
			inner = append(inner, croissantField(id+"/"+f.Name, files, column, "$."+f.Name, f))
		}
		field["repeated"], field["subField"] = true, inner
		return field
	}
	source := node{"fileSet": node{"@id": files}, "extract": node{"column": column}}
	if jsonPath != "" {
		source["transform"] = node{"jsonPath": jsonPath}
	}
	field["dataType"], field["source"] = croissantTypes[c.Type], source
	return field
}
