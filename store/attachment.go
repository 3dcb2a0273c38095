package store

import (
	"iter"
	"strings"
	"time"

	"skep/cluster"
)

var attachments = &kindOf[cluster.Attachment]{
	number: 10,
	word:   "attachment",
	key:    func(a *cluster.Attachment) string { return a.ID },
	blank:  func(id string) (*cluster.Attachment, error) { return &cluster.Attachment{ID: id}, nil },
	meta:   inMeta[cluster.Attachment](func(a *cluster.Attachment) *cluster.Meta { return &a.Meta }),
	times:  func(a *cluster.Attachment) []time.Time { return []time.Time{a.CreatedAt, a.UpdatedAt} },
	share: func(in *interner, a *cluster.Attachment) {
		in.share(&a.NodeID)
		in.share(&a.NetworkID)
	},
	uniques: func(a *cluster.Attachment) []cluster.Unique {
		if a.Address.VNI == 0 {
			return nil
		}
		return []cluster.Unique{cluster.UniqueAddress(a.Address)}
	},
	indexes: [maxIndexes]index[cluster.Attachment]{
		attachmentsByNode: {before: func(a, b *cluster.Attachment) bool {
			if c := strings.Compare(a.NodeID, b.NodeID); c != 0 {
				return c < 0
			}
			return a.ID < b.ID
		}},
	},
}

// The index of attachments by node, ID.
const attachmentsByNode = 0

// Attachment finds an attachment by its ID.
func (v View) Attachment(id string) *cluster.Attachment { return attachments.get(v, id) }

// Attachments lists the attachments in the order of their IDs.
func (v View) Attachments() iter.Seq[*cluster.Attachment] { return attachments.list(v) }

// AttachmentsOfNode lists the attachments of a node's containers, by ID.
func (v View) AttachmentsOfNode(nodeID string) iter.Seq[*cluster.Attachment] {
	return func(yield func(*cluster.Attachment) bool) {
		attachments.in(v).indexes[attachmentsByNode].Ascend(&cluster.Attachment{NodeID: nodeID}, func(a *cluster.Attachment) bool {
			return a.NodeID == nodeID && yield(a)
		})
	}
}

// AttachmentCount is the number of attachments, ended ones included.
func (v View) AttachmentCount() int { return attachments.in(v).len() }
