package store

import (
	"iter"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

var services = &kindOf[cluster.Service]{
	number: 3,
	word:   "service",
	weigh:  weighService,
	most:   maxServices,
	key:    func(s *cluster.Service) string { return s.ID },
	blank:  func(id string) (*cluster.Service, error) { return &cluster.Service{ID: id}, nil },
	name:   func(s *cluster.Service) string { return s.Spec.Name },
	meta:   inMeta[cluster.Service](func(s *cluster.Service) *cluster.Meta { return &s.Meta }),
	times:  func(s *cluster.Service) []time.Time { return []time.Time{s.CreatedAt, s.UpdatedAt, s.ScheduledSince} },
	share:  func(in *interner, s *cluster.Service) { in.share(&s.ID) },
	uniques: func(s *cluster.Service) []cluster.Unique {
		var list []cluster.Unique
		for _, a := range s.VirtualIPs {
			list = append(list, cluster.UniqueAddress(a))
		}
		for _, p := range s.Ports {
			if p.PublishMode == swarm.PortConfigPublishModeIngress && p.PublishedPort > 0 {
				list = append(list, cluster.UniquePort(p.Protocol, p.PublishedPort))
			}
		}
		return list
	},
}

// Service finds a service by its ID.
func (v View) Service(id string) *cluster.Service { return services.get(v, id) }

// ServiceNamed finds a service by its name, without regard to case.
func (v View) ServiceNamed(name string) *cluster.Service { return services.named(v, name) }

// Services lists the services in the order of their IDs.
func (v View) Services() iter.Seq[*cluster.Service] { return services.list(v) }

// ServicesWithPrefix lists the services whose ID begins with prefix.
func (v View) ServicesWithPrefix(prefix string) iter.Seq[*cluster.Service] {
	return services.withPrefix(v, prefix)
}

// ServiceCount is the number of services.
func (v View) ServiceCount() int { return services.in(v).len() }
