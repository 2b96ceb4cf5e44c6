package policy

// Where a host has policies beside /etc/containers/policy.json.
const (
	// NamespacedDir has the policies that CRI-O takes for the pods of single namespaces, NAMESPACE.json each.
	NamespacedDir = "/etc/crio/policies"
	// HomeFile is the policy of root's processes, below root's home. They read it instead of the system's.
	HomeFile = ".config/containers/policy.json"
)
