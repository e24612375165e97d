"""Published Fréchet video distances on UCF-101, each with what is known of its protocol.

A distance means something only beside others of its own protocol: one model scored 73 with 10,000 generated
clips and 107 with 2,048. The numbers therefore stand in groups, and what a source does not state is not
assumed. Where a source says so, they were collected second hand.
"""

from eval.report.published import PublishedFVD as _P
from eval.report.published import PublishedGroup

_WALT = "W.A.L.T, arXiv 2312.06662"
_LARP = "LARP, arXiv 2410.21264"
_SIZE_128 = {"num_frames": 16, "height": 128, "width": 128}
_SIZE_256 = {"num_frames": 16, "height": 256, "width": 256}
_MAGVIT = _SIZE_128 | {"num_generated": 10_000, "split": "train", "stride": 1}
_FAR = {"num_generated": 2048, "split": "trainval", "stride": 3}

PUBLISHED = (
    PublishedGroup(
        "MAGVIT protocol: class-conditional, 128², 10,000 clips",
        "the model's paper, collected second hand",
        (
            _P("W.A.L.T-XL", 36, 2, rfvd=17.1, tokens=1280, source=_WALT, note="460 M; 50 steps, unguided"),
            _P("W.A.L.T-L", 46, 2, rfvd=17.1, tokens=1280, source=_WALT, note="313 M; 50 steps"),
            _P(
                "EVATok",
                48,
                rfvd=9.7,
                source="arXiv 2603.12267",
                note="AR 327 to 633 M (accounts differ); 740 to 756 tokens on average; a variant: rFVD 4.0",
            ),
            _P("NBP-3B", 55.3, rfvd=15.5, tokens=1280, note="3 B; 95 steps"),
            _P("LARP-L-Long", 57, rfvd=20, tokens=1024, source=_LARP, note="AR 632 M; guidance 1.25"),
            _P(
                "MAGVIT-v2-MLM",
                58,
                3,
                rfvd=8.6,
                tokens=1280,
                source="arXiv 2310.05737",
                note="307 M, 840 M elsewhere; ±2 elsewhere",
            ),
            _P(
                "AdapTok-AR",
                67,
                source="arXiv 2505.17011, README",
                note="633 M; at most 1,024 tokens; rFVD 28 to 36",
            ),
            _P("NAR-LP", 71.1, note="694 M; 34 steps"),
            _P("MAGVIT-L", 76, 2, rfvd=25, tokens=1024, note="306 M (464 M in all); 12 steps"),
            _P("CausalTok-AR", 80, tokens=1024, source="as listed beside AdapTok", note="633 M; not checked"),
            _P("NBP-1.2B", 85.8, tokens=1280, note="1.2 B"),
            _P("VideoAR-XL", 88.6, tokens=320, note="2 B"),
            _P("VideoAR-L", 90.3, tokens=320, note="926 M"),
            _P("PAR-1×", 94.1, note="792 M"),
            _P("NAR-L", 96.2, note="369 M"),
            _P("PAR-4×", 99.5, note="792 M"),
            _P("LARP-L", 107, rfvd=24, tokens=1024, source=_LARP, note="343 M"),
            _P("LARP-L-Long 343 M", 102, rfvd=20, tokens=1024, source=_LARP),
            _P("MAGVIT-v2-AR", 109, rfvd=8.6, tokens=1280, source="LARP's and NBP's tables", note="840 M"),
            _P("MAGVIT-B", 159, 2, rfvd=25, tokens=1024, source="LARP's and NBP's tables"),
            _P("MAGVIT-AR", 265, rfvd=25, tokens=1024, source="LARP's and NBP's tables"),
            _P("OmniTokenizer-AR 650 M", 191, rfvd=42.35, tokens=1280, source="LARP's and NBP's tables"),
            _P("OmniTokenizer-AR 227 M", 314, tokens=1280, source="LARP's and NBP's tables"),
        ),
        protocol="magvit-10k",
        fields=_MAGVIT,
    ),
    PublishedGroup(
        "CMD on frames of 64², 10,000 clips",
        "CMD, arXiv 2403.14148",
        (_P("CMD", 73, 2, rfvd=7.72, note="guidance 4; the same model as with 2,048 clips"),),
        fields={"height": 64, "width": 64, "num_generated": 10_000},
    ),
    PublishedGroup(
        "CMD on frames of 64², 2,048 clips",
        "CMD, arXiv 2403.14148",
        (_P("CMD", 107, 9, note="guidance 4; the same model as with 10,000 clips"),),
        fields={"height": 64, "width": 64, "num_generated": 2048},
    ),
    PublishedGroup(
        "128², 2,048 clips",
        "MAGVIT's table",
        (_P("TATS", 332, 18, tokens=1024, note="321 M; autoregressive"),),
        fields=_SIZE_128 | {"num_generated": 2048},
    ),
    PublishedGroup(
        "VidTwin's own table: protocol unknown, and not one for all rows",
        "arXiv 2412.17726, Table 2",
        (
            _P("VidTwin", 193, note="paper-reported, 224², protocol unknown"),
            _P("TATS", 332, note="class-conditional, 128²"),
            _P("MAGVIT-v2", 58, note="class-conditional, 128²"),
            _P("Video-LaVIT", 275, note="text-to-video"),
        ),
    ),
    PublishedGroup(
        "Listed with others, protocols mixed or their own",
        "each model's paper, collected second hand",
        (
            _P("Make-A-Video", 81.3, note="external data, then fine-tuned"),
            _P("VideoFusion", 173),
            _P("CogVideo", 626, source="MAGVIT's table"),
            _P("HPDM-L", 66.3, source="its README", note="725 M, 256², pixels, a protocol of its own"),
        ),
    ),
    PublishedGroup(
        "TivTok's study: one class-conditional DiT on many tokenizers, 256²",
        "TivTok's paper",
        (
            _P("TivTok-T1024", 99, tokens=1024, forward_tflops=1.05),
            _P("TivTok-T512", 101, rfvd=12.65, tokens=512, forward_tflops=0.49),
            _P("TivTok-T128", 149, tokens=128, forward_tflops=0.12),
            _P("LARP-1024", 107, rfvd=51.45, tokens=1024, forward_tflops=1.05, note="rFVD 23.93 at 128²"),
            _P("Cosmos-S", 191, rfvd=104.51, tokens=512, forward_tflops=0.49),
            _P("OmniTokenizer", 191, rfvd=14.53, tokens=4096, forward_tflops=5.82),
            _P("CV-VAE", 262, rfvd=52.43, tokens=4096, forward_tflops=5.82),
            _P("Cosmos-M", None, rfvd=13.67, tokens=2048),
        ),
        fields=_SIZE_256,
    ),
    PublishedGroup(
        "FAR, class-conditional, 128²: 4 seeds",
        "FAR, arXiv 2503.19325, and its repository",
        (_P("FAR-L", 99, 5.9, note="DC-AE f32c32"),),
        fields=_SIZE_128 | _FAR,
    ),
    PublishedGroup(
        "FAR, class-conditional, 256²: 4 seeds",
        "FAR, arXiv 2503.19325, and its repository",
        (
            _P("FAR-XL", 108, 4.2, note="DC-AE f32c32"),
            _P("FAR-L", 113, 3.6, note="DC-AE f32c32"),
        ),
        fields=_SIZE_256 | _FAR,
    ),
    PublishedGroup(
        "FAR, unconditional, 128²",
        "FAR, arXiv 2503.19325, and its repository",
        (_P("FAR-L", 279, 9.2, note="DC-AE f32c32"),),
        fields=_SIZE_128 | _FAR,
    ),
    PublishedGroup(
        "FAR, unconditional, 256²",
        "FAR, arXiv 2503.19325, and its repository",
        (_P("FAR-XL", 303, note="DC-AE f32c32"), _P("FAR-L", 280, note="DC-AE f32c32")),
        fields=_SIZE_256 | _FAR,
    ),
    PublishedGroup(
        "MAGI's table, unconditional",
        "MAGI's table",
        (
            _P("Latte", 477.9, note="256², 16 frames, stride 3, XL/2; users measured otherwise, see below"),
            _P("Matten", 210.6),
            _P("MAGI-Cosmos", 297.8),
            _P("DiM", 358.8),
            _P("PVDM", 1141.9, note="disputed by its author, Latte#6"),
            _P("StyleGAN-V", 1431.0),
            _P("DIGAN", 1630.2),
            _P("MoCoGAN-HD", 1729.6),
            _P("VideoGPT", 2880.6),
        ),
    ),
    PublishedGroup(
        "Latte's released checkpoint, measured by users: protocol unknown",
        "issues of Latte's repository",
        (
            _P("Latte", 168, source="Latte#123"),
            _P("Latte", 320, source="Latte#138", note='about 320, against "220 reported"'),
        ),
    ),
    PublishedGroup(
        "128 frames of 128²",
        "TivTok's Table 3, from MALT",
        (
            _P("CoordTok + SiT-L/2", 369),
            _P("MALT", 220),
            _P("PVDM", 505),
            _P("HVDM", 550),
            _P("MeBT", 968),
            _P("TivTok-T128", 208, source="TivTok's paper"),
        ),
        fields={"num_frames": 128, "height": 128, "width": 128},
    ),
    PublishedGroup(
        "TivTok's study, 32 frames",
        "TivTok's paper",
        (_P("TivTok-T128", 300), _P("CV-VAE", 370)),
        fields={"num_frames": 32},
    ),
    PublishedGroup(
        "TivTok's study, 128 frames",
        "TivTok's paper",
        (_P("TivTok-T128", 316),),
        fields={"num_frames": 128},
    ),
    PublishedGroup(
        "V-RAE's study: one class-conditional DiT, 1,280 tokens",
        "arXiv 2608.13556, project page",
        (
            _P("V-JEPA2.1", 118.3, rfvd=6.86, tokens=1280),
            _P("EUPE", 125.7, tokens=1280),
            _P("DINOv3", 131.4, rfvd=7.88, tokens=1280),
            _P("SigLIP2", 142.6, tokens=1280),
            _P("AToken", 143.0, rfvd=8.17, tokens=1280),
            _P("Wan2.1", 148.2, rfvd=6.05, tokens=1280),
            _P("Wan2.2", 155.5, rfvd=12.20, tokens=1280),
            _P("CogVideoX", 159.2, rfvd=14.53, tokens=1280),
            _P("Hunyuan", 211.5, rfvd=7.73, tokens=1280),
            _P("Cosmos CV4×8×8", None, rfvd=17.01),
            _P("OmniTokenizer-VAE", None, rfvd=28.86),
            _P("Open-MAGVIT2", None, rfvd=36.21),
            _P("LARP", None, rfvd=142.3),
        ),
    ),
    PublishedGroup(
        "EVATok's ablation",
        "arXiv 2603.12267",
        (
            _P("baseline", 67, rfvd=13),
            _P("+ V-JEPA2 alignment", 57, rfvd=11),
            _P("+ VideoMAE discriminator", 48, rfvd=9.7),
        ),
    ),
    PublishedGroup(
        "W.A.L.T's ablation of latent channels",
        _WALT,
        (
            _P("4 channels", 86.4, rfvd=37.7),
            _P("8 channels", 75.4, rfvd=17.1),
            _P("16 channels", 67.0, rfvd=8.2),
            _P("32 channels", 83.4, rfvd=3.5),
        ),
    ),
    PublishedGroup(
        "Reconstruction alone, 128², protocols like 10,000 clips",
        "each model's paper, collected second hand",
        (
            _P("TATS", None, rfvd=162),
            _P("MAGVIT", None, rfvd=25),
            _P("Open-MAGVIT2", None, rfvd=16.0),
            _P("MAGVIT-v2", None, rfvd=8.6),
            _P("OmniTokenizer-VQ", None, rfvd=42.35),
            _P("OmniTokenizer-VAE", None, rfvd=23.44),
            _P("SweetTok", None, rfvd=44, tokens=1280),
            _P("SweetTok", None, rfvd=18, tokens=5120),
            _P("ElasticTok", None, rfvd=390, note="the first of three that are given: 390, 93, 230"),
        ),
        fields={"height": 128, "width": 128},
    ),
)
