"""Attributes of a mammogram that describe the picture and say nothing about whose it is, by their DICOM keywords."""

from __future__ import annotations

_OBJECT = """
SpecificCharacterSet SOPClassUID Modality PresentationIntentType ConversionType SeriesNumber InstanceNumber
Manufacturer ManufacturerModelName
SecondaryCaptureDeviceManufacturer SecondaryCaptureDeviceManufacturerModelName
QualityControlImage BurnedInAnnotation RecognizableVisualFeatures
LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod
"""
"""SOP common, equipment and general image (PS3.3 C.12.1, C.7.5.1, C.7.6.1): kinds and makers, no device of its own."""

_ANATOMY = """
PatientOrientation ImageLaterality Laterality ViewPosition ViewCodeSequence ViewModifierCodeSequence
BodyPartExamined AnatomicRegionSequence AnatomicRegionModifierSequence PrimaryAnatomicStructureSequence OrganExposed
BreastImplantPresent PartialView PartialViewCodeSequence ImplantPresent
CodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning
"""
"""What is shown from which side (C.8.11.2, C.8.11.7, 8.8)."""

_PIXELS = """
SamplesPerPixel PhotometricInterpretation Rows Columns PixelRepresentation NumberOfFrames
PixelPaddingValue PixelPaddingRangeLimit PixelAspectRatio
PixelSpacing PixelSpacingCalibrationType ImagerPixelSpacing NominalScannedPixelSpacing
EstimatedRadiographicMagnificationFactor
PixelIntensityRelationship PixelIntensityRelationshipSign RescaleIntercept RescaleSlope RescaleType
ModalityLUTSequence ModalityLUTType VOILUTSequence LUTDescriptor LUTData
WindowCenter WindowWidth VOILUTFunction PresentationLUTShape
"""
"""Pixels, their size and how they are shown (C.7.6.3, C.8.11.3, C.11.1, C.11.2, 10.7)."""

_ACQUISITION = """
KVP ExposureTime XRayTubeCurrent Exposure ExposureInuAs FilterType FilterMaterial AnodeTargetMaterial Grid FocalSpots
BodyPartThickness CompressionForce RelativeXRayExposure ExposureControlMode ExposureStatus
DistanceSourceToDetector DistanceSourceToPatient PositionerType PositionerPrimaryAngle PositionerSecondaryAngle
DetectorPrimaryAngle DetectorSecondaryAngle
CollimatorShape CollimatorLeftVerticalEdge CollimatorRightVerticalEdge CollimatorUpperHorizontalEdge
CollimatorLowerHorizontalEdge CenterOfCircularCollimator RadiusOfCircularCollimator VerticesOfThePolygonalCollimator
FieldOfViewShape FieldOfViewDimensions FieldOfViewOrigin FieldOfViewRotation FieldOfViewHorizontalFlip
Sensitivity DetectorConditionsNominalFlag DetectorType DetectorConfiguration DetectorBinning
DetectorElementPhysicalSize DetectorElementSpacing DetectorActiveShape DetectorActiveDimensions
AcquisitionContextSequence EntranceDoseInmGy HalfValueLayer
"""
"""How it was taken (C.8.7.2, C.8.11.4 to C.8.11.7); none of it free text."""

PICTURE = frozenset(" ".join((_OBJECT, _ANATOMY, _PIXELS, _ACQUISITION)).split())
"""All that is kept of an image whose patient must not be named, inside sequences too; everything else, private
attributes, overlays, dates, names, places, serial numbers and free text with it, is left out."""

EMPTY = (
    "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ContentDate", "ContentTime",
    "AccessionNumber", "ReferringPhysicianName", "StudyID",
)  # fmt: skip
"""Attributes that an image must have and may leave empty (type 2: PS3.3 C.7.1.1, C.7.2.1, C.7.6.1)."""
