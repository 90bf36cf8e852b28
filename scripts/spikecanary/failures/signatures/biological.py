"""Signatures of biological failures: the data hold nothing that the sorter can use."""

from spikecanary import failures as f
from spikecanary.failures.signatures.row import Signature

#: Estimators of scikit-learn with which sorters learn from the spikes they found.
_ESTIMATORS = (
    r"(?:TruncatedSVD|IncrementalPCA|PCA|MiniBatchKMeans|KMeans|HDBSCAN|DBSCAN|GaussianMixture|"
    r"StandardScaler|NearestNeighbors|KNeighborsClassifier)"
)

_ACTIVITY = (
    Signature(
        f.InsufficientActivityError,
        "the sorter found no spikes, or too few, to learn from",
        r"Found array with (?P<n_spikes>\d+) (?:sample|feature)\(s\) \(shape=\(\d+,.*\) while a minimum of \d+ "
        rf"is required(?: by {_ESTIMATORS})?\.",
        "Found array with 0 sample(s) (shape=(0, 61)) while a minimum of 1 is required by TruncatedSVD.",
        "kilosort/spikedetect.py 4.1.7, extract_wPCA_wTEMP; simplesorter.py 0.105.3; on noise",
        errors="ValueError",
    ),
    Signature(
        f.InsufficientActivityError,
        "the sorter found fewer spikes than clusters or components to learn",
        r"n_samples=(?P<n_spikes>\d+) should be >= n_clusters=\d+|Number of samples smaller than number of "
        r"clusters|n_components=\d+ must be between \d+ and min\(n_samples, n_features\)=[0-5] |Expected n_neighbors "
        r"<=? n_samples|k must be less than or equal to the number of training points",
        "n_samples=3 should be >= n_clusters=6.",
        "kilosort/spikedetect.py 4.1.7, extract_wPCA_wTEMP, on nearly silent data; scikit-learn",
        errors="ValueError",
    ),
    Signature(
        f.InsufficientActivityError,
        "the sorter detected no spikes",
        r"No (?:spikes|peaks|events|templates|units) (?:were |was |could be )?(?:detected|found)(?=[.,;:!]|$| in | by )|Wall is empty after "
        r"`clustering_qr\.run`|(?:The )?[Ss]ort(?:er|ing) (?:found|returned) no (?:spikes|units)|Not enough spikes|"
        r"Too few spikes",
        "No spikes detected, cannot continue sorting.",
        "kilosort/run_kilosort.py and clustering_qr.py 4.1.7",
        errors="ValueError RuntimeError Exception AssertionError IndexError",
    ),
    Signature(
        f.InsufficientActivityError,
        "the sorter found no spikes from which to make its prototype waveform",
        r"Prototype should have a (?:negative|positive) peak",
        "Prototype should have a negative peak",
        "spikeinterface/sortingcomponents/peak_detection/matched_filtering.py 0.105.3",
        errors="AssertionError",
    ),
    Signature(
        f.InsufficientActivityError,
        "the sorter detected no peaks",
        r"(?:.*[\s:])?(?:detect_peaks|select_peaks|detect peaks|find_spikes\w*)(?:\(\))?[^\n:]*: 0 peaks|(?:.*[\s:])?"
        r"(?:[Ff]ound|[Dd]etected|[Kk]ept) 0 (?:peaks|spikes|events)\b",
        "detect_peaks(): 0 peaks found",
        "spikeinterface/sorters/internal/tridesclous2.py 0.105.3; mountainsort5",
    ),
    Signature(
        f.NoGoodChannelsError,
        "Kilosort judged every channel bad: no threshold crossings",
        r"found 0 threshold crossings in [\d.]+ seconds of data\s*\nfound (?P<n_channels>[1-9]\d*) bad channels",
        "found 0 threshold crossings in 59.16 seconds of data\nfound 64 bad channels",
        "Kilosort2's get_good_channels.m",
    ),
    Signature(
        f.InsufficientActivityError,
        "Kilosort found next to no threshold crossings",
        r"found (?P<n_spikes>\d{1,2}) threshold crossings in ",
        "found 12 threshold crossings in 59.16 seconds of data",
        "Kilosort2's get_good_channels.m",
    ),
    Signature(
        f.InsufficientActivityError,
        "Kilosort found too few spikes in a batch to learn templates from",
        r"(?:-{10,})?Error using randperm\s*\nK must be less than or equal to N",
        "----------------------------------------Error using randperm\nK must be less than or equal to N.",
        "Kilosort2's extractTemplatesfromSnippets.m and clusterSingleBatches.m",
    ),
    Signature(
        f.InsufficientActivityError,
        "Kilosort found no snippets to learn templates from",
        r"(?:-{10,})?Error using \w+\s*\n.*\n(?:.*\n){0,2}Error in extractTemplatesfromSnippets",
        "----------------------------------------Error using indexing\nSubscript indices must either be "
        "real positive integers or logicals.\nError in extractTemplatesfromSnippets (line 56)",
        "Kilosort3's extractTemplatesfromSnippets.m",
    ),
    Signature(
        f.InsufficientActivityError,
        "batches with next to no spikes, then a computation on nothing",
        r"Warning: data batch #\d+ only had (?P<n_spikes>\d) spikes\s*\n(?:Warning: .*\n)*(?:-{10,})?(?:Error using|"
        r"Index exceeds|.*must not exceed|An unexpected error occurred trying to launch a kernel)",
        "Warning: data batch #53 only had 0 spikes\n"
        "----------------------------------------Error using gpuArray/eig\nInput matrix contains NaN or Inf.",
        "Kilosort2's clusterSingleBatches.m",
    ),
    Signature(
        f.InsufficientActivityError,
        "Kilosort found no spikes or templates",
        r"(?:Total )?(?:0|[Nn]o) (?:spikes|templates|good units) (?:were |was )?(?:found|detected|extracted)"
        r"(?:\.|,|$)|No waveforms found!|[Nn]umber of spikes(?: detected)?:? +0$|[Ff]ound 0 (?:spikes|templates)$",
        "0 spikes found",
        "logs of Kilosort 2, 2.5, 3, HerdingSpikes, Spyking Circus",
    ),
    Signature(
        f.InsufficientActivityError,
        "RT-Sort found no sequences of spikes",
        r"Detected 0 preliminary propagation sequences|0 clusters remain after filtering|0 sequences after "
        r"first merging|RT-Sort detected 0 sequences",
        "Detected 0 preliminary propagation sequences",
        "braindance/core/spikesorter/rt_sort.py, detect_sequences",
    ),
)

_CHANNELS = (
    Signature(
        f.NoGoodChannelsError,
        "no good channel is left",
        r"(?:There are )?[Nn]o good channels|All channels (?:are|were) (?:bad|dead|noisy|removed)|No channels (?:left|"
        r"remain)|.*all channels .*(?:are|were) (?:labelled |marked |detected )?(?:as )?bad",
        "No good channels found",
        "pykilosort, spikeinterface.preprocessing, ibl-sorter",
        errors="ValueError RuntimeError Exception AssertionError",
    ),
    Signature(
        f.NoGoodChannelsError,
        "Kilosort judged every channel bad",
        r"(?:.*\s)?found (?P<n_channels>\d+) bad channels\s*\n(?:.*\n){0,4}.*(?:index is out of range for deletion|"
        r"Index exceeds the number of array elements \(0\)|array elements must not exceed 0)",
        "found 32 bad channels\nTime   4s. Computing whitening matrix..\n"
        "Error using gpuArray/subsasgn\nMatrix index is out of range for deletion.",
        "Kilosort2's preprocessDataSub.m",
    ),
)

_FINITE = (
    Signature(
        f.NonFiniteSignalError,
        "the signal holds NaN or infinite values",
        r"linalg\.\w+: .*(?:contained|contains) non-finite values|.*[Aa]rray must not contain infs or NaNs|"
        r"Input (?:X |y )?contains (?:NaN|infinity)|Input contains NaN, infinity|.*contains (?:NaNs?|non-finite) "
        r"(?:values|samples)|cannot convert float NaN to integer$",
        "linalg.svd: The algorithm failed to converge because the input matrix contained non-finite values.",
        "torch.linalg 2.13 in kilosort/preprocessing.py, whitening_from_covariance; scipy; scikit-learn",
        errors="_LinAlgError LinAlgError ValueError RuntimeError",
    ),
    Signature(
        f.NonFiniteSignalError,
        "whitening failed: the signal holds NaN or infinite values",
        r'  File "[^\n]*(?:whiten|preprocess)[^\n]*\n(?:(?:  File|    )[^\n]*\n)*(?:numpy\.linalg\.|scipy\.linalg\.)?'
        r"(?:\w+\.)*LinAlgError: (?:SVD|Eigenvalues) did not converge",
        '  File "/env/spikeinterface/preprocessing/whiten.py", line 200, in compute_whitening_matrix\n'
        "    U, S, Ut = np.linalg.svd(cov)\nnumpy.linalg.LinAlgError: SVD did not converge",
        "spikeinterface/preprocessing/whiten.py 0.105.3",
    ),
    Signature(
        f.NonFiniteSignalError,
        "whitening failed: the signal holds NaN or infinite values",
        r"(?:.*[Ww]hitening matrix.*\n)(?:-{10,})?Error using (?:\w+/)?(?:svd|eig)\s*\nInput (?:to SVD must not contain|"
        r"matrix contains) NaN",
        "Getting channel whitening matrix... \nError using svd\nInput to SVD must not contain NaN or Inf.",
        "Kilosort2's whiteningLocal.m",
    ),
)

_WAVEFORMS = (
    Signature(
        f.EmptyWaveformMetricsError,
        "the sorting has no units with waveforms",
        r"No non-empty units in the sorting result|.*(?:sorting|analyzer) (?:has|contains) no units",
        "No non-empty units in the sorting result, can't save to Phy.",
        "spikeinterface/exporters/to_phy.py 0.105.3",
        errors="Exception ValueError",
    ),
)

BIOLOGICAL: tuple[Signature, ...] = (*_FINITE, *_ACTIVITY, *_CHANNELS, *_WAVEFORMS)
