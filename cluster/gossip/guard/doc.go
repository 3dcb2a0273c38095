// Package guard stands between memberlist and the network: it seals what a member
// sends, opens what arrives, and lets nothing through that members of ours don't send.
//
// Who runs it: package gossip, for each member. New starts its one goroutine, which takes
// packets from the transport and ends with Shutdown; streams are read and checked by the
// goroutines of memberlist that read from them.
//
// # Why it is there
//
// Any node has the gossip keys. These lines of memberlist 0.6.0 end the process of
// whoever hears certain texts from it, or take any amount of memory:
//
//	net.go:1194      msgType = messageType(plain[0])                  // a stream without a byte
//	net.go:1242      remoteNodes := make([]pushNodeState, header.Nodes)   // as many as the text says
//	net.go:1331      userBuf = make([]byte, header.UserMsgLen)        // likewise
//	security.go:56   return buf[:n]                                   // padding that is longer than the text
//	state.go:721     if rn.Vsn[0] > maxpmin {                         // fewer than six versions, here and below
//	state.go:767     nPCur = n.Vsn[2]                                 // likewise
//	util.go:307      _, err := io.Copy(&b, uncomp)                    // zeros, compressed
//
// And these let one text do lasting harm:
//
//	state.go:917     inc = m.skipIncarnation(accusedInc - inc + 1)    // begins at 0 again after the last number
//	state.go:1031    m.nodes = append(m.nodes, state)                 // members without end, though gossip's NotifyAlive refuses some
//
// The package goes when all of these are fixed upstream: then memberlist's own encryption
// and label do, which have the same form on the wire. TestGuard_DocHasTheLinesOfMemberlist
// fails when another version of memberlist is used, so that somebody looks.
//
// # Guarantees
//
//   - What isn't sealed with one of the keys for this cluster, isn't well formed, or is of
//     a type that members of ours don't send, never reaches memberlist.
//   - What a later level of skep adds (fields that are scalars, types of messages from 14
//     on) is left out, and the rest passes.
//   - Memory is taken as bytes come, not as they are announced; so many strangers' streams
//     are open at once, and so many are answered.
package guard
