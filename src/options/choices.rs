//! The options that take one of a few words: a word flows in, a choice flows out, or an error with the nearest word.

use crate::choice::choice;

choice! {
    /// How the rows are made: what is matched between real and synthetic rows, or how real rows are chosen.
    Method {
        /// Chosen from the kind of rows and `ipc`.
        Auto = "auto",
        /// Mean embeddings (distribution matching, Zhao and Bilen 2023).
        Mean = "mean" | "dm",
        /// Characteristic functions (neural characteristic function matching, Wang et al. 2025).
        Characteristic = "characteristic" | "ncfm",
        /// The loss, on the real rows, of a ridge regression fitted to the synthetic ones (Nguyen et al. 2021; Zhou et al. 2022).
        Ridge = "ridge" | "frepo" | "kip",
        /// Real rows, uniformly drawn.
        Random = "random",
        /// Real rows whose mean embedding follows the class's (Welling 2009).
        Herding = "herding",
        /// Real rows of which no other is far (Gonzalez 1985).
        KCenter = "k_center" | "k-center",
        /// Real rows nearest to the centres of k-means (Lloyd 1982).
        KMeans = "k_means" | "k-means",
    }
}
choice! {
    /// A term of the loss that synthetic rows are optimized by.
    Term {
        /// Mean embeddings.
        Mean = "mean" | "dm",
        /// Characteristic functions.
        Characteristic = "characteristic" | "ncfm",
        /// A ridge regression's loss.
        Ridge = "ridge",
        /// The cross-entropy of the synthetic rows under a classifier that is fitted to the real ones.
        Calibration = "calibration",
    }
}
choice! {
    /// How synthetic rows are split over the classes.
    Allocation {
        /// As many each.
        Equal = "equal",
        /// In proportion to the class's real rows.
        Proportional = "proportional",
        /// In proportion to the square root of the class's real rows.
        Sqrt = "sqrt",
    }
}
choice! {
    /// Where the extractors' weights come from.
    PoolKind {
        /// Random, from `seed`.
        Random = "random",
        /// Random and trained ones, and ones between: trained on a sample of the rows, by a scan of its own.
        Trained = "trained",
        /// Ones from early in their training, perturbed.
        Early = "early",
    }
}
choice! {
    /// What the synthetic rows start from.
    Init {
        /// Real rows of the reservoir.
        Real = "real",
        /// Noise.
        Noise = "noise",
    }
}
choice! {
    /// What the rows of the source are.
    Input {
        /// Rows to sketch.
        Rows = "rows",
        /// Sketches, each with its label beside it.
        Sketches = "sketches",
    }
}
choice! {
    /// Which second moments of the features a sketch has.
    Moments {
        /// None.
        None = "none",
        /// Those of all classes together.
        Pooled = "pooled",
        /// Those of each class.
        Class = "class",
    }
}
choice! {
    /// Where soft labels come from.
    LabelSource {
        /// Learned with the rows.
        Learned = "learned",
        /// What a ridge regression of all real rows says of the finished rows.
        Teacher = "teacher",
        /// The mean of both.
        Both = "both",
    }
}
choice! {
    /// What labels the synthetic rows carry.
    LabelKind {
        /// One class a row, in the source's own label column.
        Hard = "hard",
        /// That, and a column `soft_label` with a share for each class.
        Soft = "soft",
    }
}
choice! {
    /// How the synthetic pictures are written.
    Encoding {
        /// As the source has them: PNG for pictures.
        Source = "source" | "png",
        /// As exact lists of f32.
        Tensor = "tensor",
    }
}
choice! {
    /// What to do with a row whose label or feature is NULL.
    OnNull {
        /// Stop, naming the row.
        Error = "error",
        /// Leave the row out and count it.
        Skip = "skip",
        /// Take a missing feature of a table as missing: the synthetic rows miss it as often. A missing label stops the job.
        Impute = "impute",
    }
}
choice! {
    /// How the numbers of a table are mapped to the extractors' input.
    Curve {
        /// Each column by its own numbers: linear, or by quantiles where its tails are heavy.
        Auto = "auto",
        /// Mean 0 and standard deviation 1.
        Linear = "linear",
        /// The inverse hyperbolic sine, a logarithm that takes 0 and negative numbers, then as linear.
        Log = "log",
        /// The rank among the column's numbers.
        Quantile = "quantile",
    }
}
choice! {
    /// What the extractors are.
    Network {
        /// ConvNets for pictures, MLPs for lists of numbers, MLPs and Fourier features in turn for tables.
        Auto = "auto",
        /// The field's ConvNet, for pictures.
        ConvNet = "convnet",
        /// Random multilayer perceptrons, for vectors and tables.
        Mlp = "mlp",
        /// Random Fourier features (Rahimi and Recht 2007), for vectors and tables.
        Fourier = "fourier",
        /// MLPs and Fourier features in turn, for vectors and tables.
        Mixed = "mixed",
    }
}
choice! {
    /// Whose outputs are an extractor's features.
    Layers {
        /// Its last block's.
        Last = "last",
        /// Those of all blocks, averaged to the last one's height and width.
        All = "all",
    }
}
choice! {
    /// How large a pool's extractors are.
    Sizes {
        /// All of the same width and depth.
        Same = "same",
        /// In turn as the pool says, half as wide, one block less, and both.
        Mixed = "mixed",
    }
}
choice! {
    /// The optimizer of the synthetic rows.
    OptimizerKind {
        /// Adam (Kingma and Ba 2015).
        Adam = "adam",
        /// Stochastic gradient descent with momentum.
        Sgd = "sgd",
    }
}

impl Term {
    /// Whether it is computed from the second moments of the real rows' features.
    pub fn needs_moments(self) -> bool {
        match self {
            Self::Ridge | Self::Calibration => true,
            Self::Mean | Self::Characteristic => false,
        }
    }
}

impl Method {
    /// Whether it chooses real rows, in place of optimizing synthetic ones.
    pub fn selects(self) -> bool {
        match self {
            Self::Auto | Self::Mean | Self::Characteristic | Self::Ridge => false,
            Self::Random | Self::Herding | Self::KCenter | Self::KMeans => true,
        }
    }

    /// Its name, and `asked`'s in brackets where that stands for it: `herding (auto)`.
    pub(crate) fn chosen_from(self, asked: Self) -> String {
        if self == asked { self.to_string() } else { format!("{self} ({asked})") }
    }

    /// Whether it looks at what extractors make of the rows.
    pub fn extracts(self) -> bool {
        self != Self::Random
    }
}
