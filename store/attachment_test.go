package store

import (
	"slices"
	"testing"

	"skep/cluster"
)

func TestAttachmentsOfNode_ListsThoseOfTheNodeOnly(t *testing.T) {
	s, _ := lead(t)
	put(t, s, &cluster.Attachment{ID: "b", NodeID: "n2"}, &cluster.Attachment{ID: "c", NodeID: "n1"}, &cluster.Attachment{ID: "a", NodeID: "n1"}, &cluster.Attachment{ID: "d", NodeID: "n10"})
	var ids []string
	for a := range s.View().AttachmentsOfNode("n1") {
		ids = append(ids, a.ID)
	}
	if !slices.Equal(ids, []string{"a", "c"}) || s.View().AttachmentCount() != 4 || s.View().Attachment("d") == nil {
		t.Errorf("n1 has %v, of %d", ids, s.View().AttachmentCount())
	}
}
