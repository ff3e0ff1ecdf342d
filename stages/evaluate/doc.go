// Package evaluate measures labels and features against the true classes of
// images.
//
// # Features
//
// [Run] reads the training and the test split through networks in evaluation
// mode, whole images preprocessed as the job says, and classifies the test
// images by simple means: by their nearest training images ([Engine.Nearest],
// [Neighbours.Vote]) and by a linear classifier ([Engine.Probe]). Features are
// the values of any tensor of the graph; maps are pooled ([Pooling]). The pixels
// themselves serve as a baseline: each of the preprocessed image's values
// standardised by the mean and deviation it has over the training split, then
// treated as any features. Nothing is random, and the figures are the same for
// any number of processors; matrices are multiplied by ONNX Runtime.
//
// # Labels
//
// [Compare] measures how well a clustering agrees with another one, such
// as the labels of a head with a known truth or with the previous round's
// labels. A clustering is a slice of labels, one per row; a label is only a
// name, so measures do not change when labels are renamed.
//
// With n rows, n_kc of them in cluster k and class c, a_k in cluster k and b_c
// in class c, and natural logarithms (the unit cancels in every ratio):
//
//	MI     Σ_kc n_kc/n · log(n·n_kc / (a_k·b_c))           mutual information, nats
//	NMI    MI / ½(H(a) + H(b)),  H(a) = −Σ_k a_k/n · log(a_k/n)
//	AMI    (MI − E[MI]) / (½(H(a) + H(b)) − E[MI])         0 on average by chance
//	ARI    (Σ_kc C(n_kc,2) − e) / (½(A + B) − e)           0 on average by chance
//	       A = Σ_k C(a_k,2), B = Σ_c C(b_c,2), e = A·B / C(n,2)
//	Purity Σ_k max_c n_kc / n
//
// E is the mean over all ways to deal the rows to clusters and classes of the
// same sizes. NMI and AMI with the arithmetic mean: N. X. Vinh, J. Epps and J.
// Bailey, "Information theoretic measures for clusterings comparison", JMLR 11
// (2010), table 2 and theorem 2. ARI: L. Hubert and P. Arabie, "Comparing
// partitions", Journal of Classification 2 (1985), equation 5. Purity: C. D.
// Manning, P. Raghavan and H. Schütze, "Introduction to Information Retrieval"
// (2008), section 16.3.
//
// NMI and purity grow with the number of clusters even when the labels say
// nothing. [Chance] measures by how much, so that they are read as a difference.
// [ScoreHead] puts all of it together for a head.
package evaluate
