package stack

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/docker/cli/cli/compose/convert"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// KeptDeploys is how many deployments of a stack are remembered.
const KeptDeploys = 10

// Record is what a deployment made of a stack. It is kept as a config of the stack, so it is in
// the cluster's backups, and goes with the stack.
type Record struct {
	Number    int `json:"-"`
	CreatedAt time.Time
	Message   string `json:",omitempty"`
	Services  []swarm.ServiceSpec
	Networks  []Network

	id string
}

// ID is that of the config that it is kept as.
func (r Record) ID() string { return r.id }

// Records are those of a stack, the newest first.
func Records(name string, live Live) (records []Record) {
	for _, config := range live.Configs {
		if config.Spec.Labels[convert.LabelNamespace] != name {
			continue
		}
		n, err := strconv.Atoi(config.Spec.Labels[cluster.LabelStackDeploy])
		if err != nil {
			continue
		}
		record := Record{}
		if json.Unmarshal(config.Spec.Data, &record) != nil {
			continue // Somebody else's.
		}
		record.Number, record.CreatedAt, record.id = n, config.CreatedAt, config.ID
		records = append(records, record)
	}
	slices.SortFunc(records, func(a, b Record) int { return -cmp.Compare(a.Number, b.Number) })
	return records
}

// Remember is the config that remembers what was deployed, after those that are there.
func (s *Stack) Remember(records []Record, message string) (spec swarm.ConfigSpec, err error) {
	number := 1
	if len(records) > 0 {
		number = records[0].Number + 1
	}
	spec.Name = fmt.Sprintf("%s.deploy-%d", s.Name, number)
	spec.Labels = map[string]string{convert.LabelNamespace: s.Name, cluster.LabelStackDeploy: strconv.Itoa(number)}
	spec.Data, err = json.Marshal(Record{Message: message, Services: s.Services, Networks: s.Networks})
	return spec, err
}

// Recall is the stack as it was deployed. number 0 is the one before the last.
func Recall(name string, records []Record, number int) (*Stack, error) {
	i := 1
	if number != 0 {
		i = slices.IndexFunc(records, func(r Record) bool { return r.Number == number })
	}
	switch {
	case i == 0:
		return nil, fmt.Errorf("deployment %d of stack %s is the last one", records[0].Number, name)
	case i < 0:
		return nil, fmt.Errorf("deployment %d of stack %s isn't remembered: `skep stack history %s` lists those that are", number, name, name)
	case i >= len(records):
		return nil, fmt.Errorf("stack %s has no deployment before the last one that is remembered", name)
	}
	record := records[i]
	return &Stack{Name: name, Services: record.Services, Networks: record.Networks, recalled: record.Number}, nil
}

// Recalled is the number of the deployment that it is, 0 if it was loaded.
func (s *Stack) Recalled() int { return s.recalled }
