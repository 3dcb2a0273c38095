package main

import (
	"archive/tar"
	"bytes"
	"time"
)

// tarOf is the files as a tar file, all of them root's and of one time; before is in front of each path.
func tarOf(files []file, before string, when time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: before + f.path, Mode: f.mode, Size: int64(len(f.body)), Linkname: f.link,
			Uname: "root", Gname: "root", ModTime: when, Format: tar.FormatGNU,
		}
		switch {
		case f.link != "":
			h.Typeflag = tar.TypeSymlink
		case f.dir():
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.body); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}
