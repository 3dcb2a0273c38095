package api

import (
	"fmt"
	"io"
)

// Services without a name get one of these, adjective and noun, as Docker does.
var (
	adjectives = []string{
		"amber", "ancient", "brave", "bright", "brisk", "calm", "clever", "cosy", "curious", "eager", "early", "fearless", "fond",
		"gentle", "golden", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "merry",
		"mild", "nimble", "noble", "patient", "plucky", "polite", "proud", "quick", "quiet", "rapid", "ready", "rosy", "serene",
		"sharp", "shiny", "silent", "smart", "snug", "sober", "solid", "spry", "stately", "steady", "sturdy", "sunny", "swift",
		"tender", "tidy", "trusty", "vivid", "warm", "wise", "witty", "young", "zealous", "zesty", "airy", "bold",
	}
	nouns = []string{
		"alder", "apiary", "aster", "balm", "beech", "bloom", "borage", "bramble", "brood", "cedar", "cell", "clover", "comb",
		"cowslip", "crocus", "daisy", "dandelion", "drone", "elder", "fennel", "fern", "flower", "forager", "foxglove", "garden",
		"hazel", "heath", "heather", "hive", "honey", "hornet", "hyssop", "ivy", "lavender", "lilac", "lime", "linden", "maple",
		"marjoram", "meadow", "mint", "nectar", "orchard", "pollen", "poppy", "primrose", "queen", "rose", "rosemary", "sage",
		"scout", "skep", "smoker", "spring", "sunflower", "swarm", "teasel", "thistle", "thyme", "vetch", "violet", "wax", "willow", "yarrow",
	}
)

// randomName makes a name. It panics when random fails, as for IDs.
func randomName(random io.Reader) string {
	var pick [2]byte
	if _, err := io.ReadFull(random, pick[:]); err != nil {
		panic(fmt.Sprintf("read randomness for a name: %v", err))
	}
	return adjectives[int(pick[0])%len(adjectives)] + "_" + nouns[int(pick[1])%len(nouns)]
}
