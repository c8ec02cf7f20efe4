"""What timm's and torchvision's blocks mean by the names of their parts: the table that roles are read off.

Entries are ``Class.child`` (``file.Class.child`` where two files use one class name); the child is a
pattern, and everything pointwise below it has the role. They hold for subclasses, and only for classes of
timm, torchvision and passband: what somebody else calls ``Mlp`` may mix tokens.
"""

from __future__ import annotations

SPATIAL = """
    MixerBlock.mlp_tokens  ResBlock.linear_tokens  SpatialGatingUnit.proj
    OutlookAttention.attn  Involution.conv*  LambdaLayer.conv_lambda  LambdaLayer.pos_emb
    HSMSSD.BCdt_proj  HSMSSD.A  RotaryEmbeddingMixed.freqs
"""
"""Layers along the token axis, and those that compute the weights which mix tokens."""

CHANNEL = """
    Mlp.fc*  GluMlp.fc*  GatedMlp.fc*  SwiGLU.*  SwiGLUPacked.fc*  GeGluMlp.w*  GlobalResponseNormMlp.fc*
    MlpWithDepthwiseConv.fc*  NormMlp.fc*  ConvMlp.fc*  LevitMlp.*  GatedConvBlock.fc*  csatv2.Block.pwconv*
    LinearLayer.*  LSTM2d.fc  CondConvResidual.routing_fn  EcaModule.conv  CecaModule.conv
    HieraBlock.proj  hieradet_sam2.MultiScaleBlock.proj  mvitv2.MultiScaleBlock.shortcut_proj_*
    crossvit.MultiScaleBlock.projs  crossvit.MultiScaleBlock.revert_projs  pit.Pooling.fc
    DeepseekVitAligner.fc*  Qwen3VitPatchMerger.fc2  CoaT.aggregate
    ParallelScalingBlock.*out_proj  ParallelScalingBlock.mlp_bias
    DiffParallelScalingBlock.*out_proj  DiffParallelScalingBlock.mlp_bias
    OutlookAttention.v  OutlookAttention.proj  HSMSSD.hz_proj  HSMSSD.out_proj
    XCA.*  davit.ChannelAttention.*  ChannelAttentionV2.*  CrossCovarianceAttn.*
    Gemma4GatedMlp.*  misc.MLP.*  CNBlock.block  PartitionAttentionLayer.mlp_layer  EncoderBlock.mlp
    WaveMixer.rotation
"""
"""Layers along the channel axis. Attention between channels (XCiT, DaViT, EdgeNeXt) is channel as a whole."""

CHANNEL_KERNELS = "EcaModule CecaModule"
"""Modules whose kernels run along the channel axis."""

BOTH = """
    NaFlexEmbeds.proj  Gemma4PatchEmbed.input_proj  tnt.Block.proj  TNT.proj  PatchMerging.reduction
    PatchMergingV2.reduction  Qwen3VitPatchMerger.fc1  LSTM2d.rnn*
    vgg.VGG.classifier  alexnet.AlexNet.classifier  InceptionAux.fc1
"""
"""Linear layers on several pixels at once, and recurrent layers."""

NEITHER = """
    MlpHead.*  MlpClassifierHead.*  NormMlpClassifierHead.*  ClNormMlpClassifierHead.*  VOLO.aux_head
    efficientvit_mit.ClassifierHead.classifier  LowFormer.pre_classifier  maxvit.MaxVit.classifier
    mobilenetv3.MobileNetV3.classifier  InceptionAux.fc2  inception.InceptionAux.fc
    EfficientViM.weights*  EfficientViM.heads*  EfficientViMBlock.alpha  HSMSSD.D  ResBlock.ls*  Affine.*
    Scale.scale  StarReLU.*  LearnableAffineBlock.*  NormFreeBlock.skipinit_gain
    SpartanBlock.*_scale
"""
"""Heads beside the classifier, and learned scales."""

ATTENTION = """
    Attention Attention2d AttentionCl AttentionRope AttentionPool2d AttentionPoolLatent RotAttentionPool2d
    Attention2dDownsample AttentionDownsample BatNonLocalAttn BottleneckAttn CascadedGroupAttention
    ClassAttention ClassAttn CrossAttention lowformer.ConvAttention cpubone.ConvAttention DiffAttention
    DiffParallelScalingBlock EfficientAdditiveAttention EfficientAttention E_MHSA EvaAttention
    FactorAttnConvRelPosEnc GPSA Gemma4Attention GlobalSubSampleAttn HaloAttn LambdaLayer LinearSelfAttention
    LiteMLA LocallyGroupedAttn MHSA MaskUnitAttention MultiQueryAttention2d SHMA MultiQueryAttentionV2
    MultiScaleAttention NonLocalAttn ParallelScalingBlock RelPosAttention SHSA SpatialTransformerBlock
    TalkingHeadAttn WindowAttention WindowAttentionGlobal WindowMultiHeadAttention
    RelativePositionalMultiHeadAttention ShiftedWindowAttention ShiftedWindowAttentionV2 MultiheadAttention
"""
"""Attention between positions: its parts are told apart by the names below."""

QUERY_KEY = """
    q k qk q_proj k_proj wq wk query key to_query to_key q_bias k_bias bias_k pos_proj proj_l proj_w
    talking_head* temperature logit_scale gating_param w_g lambda_q* lambda_k* t p qk_proj cpb_mlp meta_mlp
"""
"""What forms the attention map: spatial."""

VALUE_OUT = """
    v v_proj wv value v_bias v_local bias_v v_gate proj o_proj output final out_proj merge g z
"""
"""What the map is applied to, and what follows: channel."""

FUSED = "qkv qkvs kv to_qkv qkv_proj in_proj* pwise aggreg"
"""Query, key and value of one layer, by rows: split (see ``layouts``)."""

POSITIONS = """
    pos_embed* pos_embedding* pos_emb position_embedding* patch_pos pixel_pos rel_pos*
    relative_position_bias_table attention_biases height_rel width_rel
"""
"""Names of parameters that say where a token is: spatial, in any module."""

TOKENS_AND_SCALES = """
    cls_token* class_token reg_token dist_token latent gamma* layer_scale* gain
"""
"""Names of parameters that are learned tokens or learned scales: neither, in any module."""
